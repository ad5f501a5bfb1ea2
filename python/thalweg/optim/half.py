"""Parameters of 16 bits: float16, and bfloat16 as ml_dtypes has it or PyTorch exports it."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import numpy.typing as npt

HALF = ("bfloat16", "float16")


def is_half(array: npt.NDArray[Any]) -> bool:
    """Whether the compiled step needs a float32 master copy of `array`."""
    return array.dtype.name in HALF


def compute_dtype(array: npt.NDArray[Any]) -> np.dtype[Any]:
    """What states and averages of a parameter are kept in."""
    return np.dtype(np.float32) if is_half(array) else array.dtype


def half_dtype(name: str) -> np.dtype[Any]:
    """The dtype of that name in `HALF`; ImportError where bfloat16 lacks its package."""
    if name == "float16":
        return np.dtype(np.float16)
    try:
        dtype: np.dtype[Any] = np.dtype(importlib.import_module("ml_dtypes").bfloat16)
    except ImportError as error:
        raise ImportError("bfloat16 needs ml_dtypes; pip install ml_dtypes") from error
    return dtype


def from_dlpack(memory: Any) -> npt.NDArray[Any]:
    """`np.from_dlpack`, and of PyTorch's bfloat16 too, which NumPy's knows nothing of."""
    if str(getattr(memory, "dtype", "")) != "torch.bfloat16":
        return np.from_dlpack(memory)
    bits = memory.view(importlib.import_module("torch").int16)
    return np.from_dlpack(bits).view(half_dtype("bfloat16"))
