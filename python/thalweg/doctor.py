"""What `thalweg doctor` reports: this machine, this build, and what is missing and why."""

from __future__ import annotations

import importlib
import os
import platform
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from . import _core, cuda

Finding = tuple[str, str]


def installed(package: str, extra: str | None = None) -> str:
    """The version of an installed package, or that it is missing and the extra that brings it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed" + (f" (pip install '{extra}')" if extra else "")


def report() -> list[Finding]:
    """(name, finding) pairs; nothing here raises where something is absent."""
    return [
        ("thalweg", _core.__version__),
        ("Python", f"{platform.python_version()} on {platform.platform()}"),
        ("NumPy", np.__version__),
        ("ISA", f"{_core.isa()} (available: {', '.join(_core.available_isas())})"),
        ("threads", f"{_core.get_num_threads()} of {len(os.sched_getaffinity(0))} usable CPUs"),
        ("memory", _memory()),
        ("MPI", _mpi()),
        ("CUDA", cuda.problem() or "available"),
        ("CuPy", installed("cupy", "thalweg[cuda]")),
        ("scikit-learn", installed("scikit-learn", "thalweg[data]")),
        ("matplotlib", installed("matplotlib", "thalweg[plot]")),
    ]


def products(shape: tuple[int, int, int], dtype: str, precision: str | None) -> list[Finding]:
    """Which path (M, K) @ (K, N) takes at a precision, or at each of them, and why."""
    name = "x".join(map(str, shape))
    found = []
    for each in [precision] if precision else ["strict", "highest", "high", "medium"]:
        path, reason = _core.matmul_path(*shape, dtype=dtype, precision=each)
        found.append((f"{name} {each}", f"{path}: {reason}"))
    return found


def limits() -> list[Finding]:
    """Measured limits of this machine, which the benchmarks divide by."""
    return [(name, f"{value:.4g}") for name, value in _core.measure_limits().items()]


def _memory() -> str:
    page = os.sysconf("SC_PAGE_SIZE")
    whole, free = (os.sysconf(name) * page for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
    return f"{whole / 2**30:.1f} GiB, {free / 2**30:.1f} GiB free"


def _mpi() -> str:
    """The library's name without initialising MPI, which would need a launcher's blessing."""
    try:
        importlib.import_module("mpi4py").rc.initialize = False
        library = importlib.import_module("mpi4py.MPI").Get_library_version()
    except (ImportError, RuntimeError) as error:
        return f"not usable: {error} (pip install 'thalweg[mpi]')"
    return f"{library.split(',')[0].strip()}, mpi4py {installed('mpi4py')}"
