"""The CUDA half: whether it can be used here, loading it, and moving arrays.

GPU arrays are CuPy's (or any library's with `__cuda_array_interface__`); the kernels are in the
extension `_cuda`, whose table `_core` takes over when a GPU array is first seen.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _core


def problem() -> str | None:
    """What keeps the CUDA half from working here; None where it works.

    >>> import thalweg as tw
    >>> tw.cuda.problem() is None or isinstance(tw.cuda.problem(), str)
    True
    """
    if _core.has_cuda():
        return None
    try:
        extension = importlib.import_module("thalweg._cuda")
    except ImportError as error:
        if importlib.util.find_spec("thalweg._cuda") is not None:
            return f"the extension _cuda does not load ({error})"
        return (
            "this build has no CUDA half; install thalweg-cuda13, or build with "
            "`pip install -Ccmake.define.THALWEG_CUDA=ON .` where nvcc 13 is"
        )
    trouble = extension.problem()
    if trouble is not None:
        return f"no NVIDIA driver with a GPU was found ({trouble}); see `nvidia-smi`"
    if importlib.util.find_spec("cupy") is None:
        return "CuPy, which owns the GPU's memory, is missing; pip install 'thalweg[cuda]'"
    return None


def load(wanted_by: str) -> None:
    """Makes GPU arrays usable; RuntimeError that says what is missing where they cannot be."""
    if _core.has_cuda():
        return
    trouble = problem()
    if trouble is not None:
        raise RuntimeError(f"{wanted_by} needs the GPU, but {trouble}")
    extension = importlib.import_module("thalweg._cuda")
    extension.keep_scratch_memory()
    _core.install_cuda(extension.table())


def is_available() -> bool:
    """Whether `.to("cuda")` and GPU arrays work here."""
    return problem() is None


def is_device_array(x: Any) -> bool:
    """Whether x lives on a GPU."""
    return not isinstance(x, np.ndarray) and hasattr(x, "__cuda_array_interface__")


def to_device(x: npt.NDArray[Any]) -> Any:
    """A CuPy array with the values of x; x itself if it is on the GPU already."""
    load("to_device")
    return x if is_device_array(x) else importlib.import_module("cupy").asarray(x)


def to_host(x: Any) -> npt.NDArray[Any]:
    """A NumPy array with the values of x; x itself if it is on the host already."""
    if not is_device_array(x):
        return np.asarray(x)
    host: npt.NDArray[Any] = importlib.import_module("cupy").asarray(x).get()
    return host
