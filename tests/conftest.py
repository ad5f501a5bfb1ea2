"""What every test may rely on: data, PyTorch, threads and instruction sets left as found."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

import device
from thalweg import _core

hypothesis.settings.register_profile(
    "thalweg", deadline=None, derandomize=True, max_examples=50, print_blob=True
)
hypothesis.settings.load_profile("thalweg")


def pytest_configure(config: pytest.Config) -> None:
    device.install(config)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of operations are GPU tests too. Those marked `torch` are skipped without PyTorch."""
    device.mark(config, items)
    try:
        import torch  # noqa: F401
    except ImportError:
        skip = pytest.mark.skip(reason="PyTorch is not installed (extra: test-torch)")
        for item in items:
            if item.get_closest_marker("torch"):
                item.add_marker(skip)


@pytest.fixture(autouse=True)
def machine_as_found() -> Iterator[None]:
    """A test may call use_isa and set_num_threads; the next one starts from the defaults."""
    isa, threads = _core.isa(), _core.get_num_threads()
    yield
    if _core.isa() != isa:
        _core.use_isa(isa)
    if _core.get_num_threads() != threads:
        _core.set_num_threads(threads)


@pytest.fixture(params=_core.available_isas())
def isa(request: pytest.FixtureRequest) -> str:
    """Each instruction set that this CPU runs, in use during the test."""
    _core.use_isa(request.param)
    return str(request.param)


@pytest.fixture(scope="session")
def data_directory() -> Path:
    """MNIST and CIFAR-10: THALWEG_DATA, else ../shared/data beside the checkout."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    directory = Path(os.environ.get("THALWEG_DATA") or beside)
    if not directory.is_dir():
        pytest.skip(f"no data sets: set THALWEG_DATA ({directory} does not exist)")
    return directory
