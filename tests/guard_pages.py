"""Arrays between two forbidden pages: an access one element too far kills the process."""

from __future__ import annotations

import ctypes
import math
import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

_LIBC = ctypes.CDLL(None, use_errno=True)
_PROT_NONE = 0


def guarded(shape: tuple[int, ...], dtype: npt.DTypeLike, *, at_end: bool) -> npt.NDArray[Any]:
    """An array of zeros that ends (or begins) exactly where a forbidden page begins (or ends)."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    inner = -(-max(size, 1) // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, inner + 2 * mmap.PAGESIZE)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for page in (base, base + mmap.PAGESIZE + inner):
        if _LIBC.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(mmap.PAGESIZE), _PROT_NONE) != 0:
            raise OSError(ctypes.get_errno(), "mprotect")
    offset = mmap.PAGESIZE + (inner - size if at_end else 0)
    return np.ndarray(shape, dtype, buffer=memory, offset=offset)
