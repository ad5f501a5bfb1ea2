"""Runs the tests of operations on a CUDA table instead of the CPU: `pytest -m gpu`.

The tests themselves are the CPU's, with their tables and float64 references. Where a GPU can be
used they run on it (shuttle.py), else on the emulated table that `make cuda-emulated` builds; with
THALWEG_TEST_SHUTTLE=1 the emulated table gets its arrays through the shuttle too.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import fake_cupy
import shuttle
from thalweg import _core, cuda

# The tests of what has CUDA kernels.
MODULES = {
    "test_cuda_table",
    "test_batch_norm",
    "test_conv",
    "test_conv_exact",
    "test_cuda_arrays",
    "test_dropout",
    "test_elementwise",
    "test_local_response_norm",
    "test_matmul",
    "test_matmul_bad_input",
    "test_optim",
    "test_optim_bad_input",
    "test_optim_exact",
    "test_pool",
    "test_reduce",
    "test_softmax",
}
BUILD = Path(__file__).parents[1] / "build"


def emulated_module() -> ModuleType | None:
    """The newest build of _cuda_emulated, or the one that THALWEG_CUDA_EMULATED names."""
    named = os.environ.get("THALWEG_CUDA_EMULATED")
    found = [Path(named)] if named else sorted(BUILD.glob("emulated*/_cuda_emulated.*.so"))
    if not found:
        return None
    path = str(max(found, key=lambda p: p.stat().st_mtime))
    loader = importlib.machinery.ExtensionFileLoader("_cuda_emulated", path)
    spec = importlib.util.spec_from_loader("_cuda_emulated", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def wanted(config: pytest.Config) -> bool:
    """Whether this run asks for the GPU tests and nothing else."""
    return str(config.getoption("markexpr")).strip().startswith("gpu")


_table: Any = None
_shuttled = False


def install(config: pytest.Config) -> None:
    """Makes the operations of this process run on the table, if only GPU tests are asked for."""
    global _table, _shuttled
    if not wanted(config):
        return
    if cuda.is_available():
        cuda.load("pytest -m gpu")
        _table, _shuttled = importlib.import_module("thalweg._cuda").table(), True
    elif (module := emulated_module()) is not None:
        _table, _shuttled = module.table(), bool(os.environ.get("THALWEG_TEST_SHUTTLE"))
        if _shuttled:
            sys.modules["cupy"] = fake_cupy.module()
            _core.install_cuda(_table)
    if _shuttled:
        shuttle.install()
    elif _table is not None:
        _core.emulate_cuda(_table)


def table() -> Any:
    """The capsule of the table in use, or None."""
    return _table


@contextmanager
def on_the_cpu() -> Iterator[None]:
    """The CPU's own kernels, to compare with."""
    if _shuttled:
        with shuttle.at_home():
            yield
        return
    _core.emulate_cuda(None)
    try:
        yield
    finally:
        _core.emulate_cuda(_table)


# A product of one column is summed in sixteen lanes on the CPU alone.
CPU_ALONE = ("threads", "out_of_memory", "guard", "fewer_products", "a_column_")

# What optimizers refuse on a GPU so far, by words in the names of tests.
REFUSED = ("nonfinite", "grad_scaler", "int8", "eight_bit")


def about_the_cpu(item: pytest.Item) -> bool:
    """Threads, host memory and instruction sets are nothing to a GPU: one of the last is enough."""
    parameters = (
        item.callspec.params
        if isinstance(item, pytest.Function) and hasattr(item, "callspec")
        else {}
    )
    if any(word in item.name for word in (*CPU_ALONE, *REFUSED)):
        return True
    return bool(parameters.get("isa", _core.isa()) != _core.isa())


def mark(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks the tests of the modules above; they are skipped, with that reason, without a table."""
    skip = pytest.mark.skip(reason="no CUDA table: run `make cuda-emulated`")
    for item in items:
        if item.path.stem in MODULES and not about_the_cpu(item):
            item.add_marker(pytest.mark.gpu)
            if _table is None and (wanted(config) or item.path.stem.startswith("test_cuda")):
                item.add_marker(skip)
