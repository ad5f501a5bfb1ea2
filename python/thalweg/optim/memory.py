"""Where an optimizer's arrays lie: one allocation per dtype, each tensor on cache lines of its own.

A step reads and writes element `i` of the parameter and of each state in turn. A load has to wait
for an earlier store whose address agrees with its own in the last 12 bits (the processor compares
only those at first), so streams that lie a few cache lines apart modulo 4096 hold each other up: on
a Zen 4, Adam over 1x32M on one thread took 22 ms for states 48 bytes ahead of their parameter, and
15.6 ms for states far from it. Hence lanes: state k of a large parameter starts `k` lanes after it,
modulo 4096.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..backend import aligned_empty
from ..cuda import is_device_array
from .half import compute_dtype

Array: TypeAlias = npt.NDArray[Any]
Layout: TypeAlias = Sequence[tuple[tuple[int, ...], "np.dtype[Any]"]]

_LINE_BYTES = 64
_PAGE_BYTES = 4096
_LANE_BYTES = 768  # the parameter, three states and the average: five lanes are less than a page
_LARGE_BYTES = 1 << 16  # from here on a page of padding does not count


def allocate_like(views: Sequence[Array], lane: int = 0) -> list[Array]:
    """Zeros with the shapes of `views` in their compute dtypes, `lane` lanes after them."""
    on_device = any(map(is_device_array, views))
    places = None if on_device else [view.ctypes.data + lane * _LANE_BYTES for view in views]
    return allocate([(view.shape, compute_dtype(view)) for view in views], places, on_device)


def allocate(
    layout: Layout, places: Sequence[int] | None = None, on_device: bool = False
) -> list[Array]:
    """Zeros of these shapes and dtypes, in one allocation per dtype.

    Args:
        places: an address for each array: a large one starts near it, modulo a page.
    """
    room = dict.fromkeys((dtype for _, dtype in layout), 0)
    starts = []
    for i, (shape, dtype) in enumerate(layout):
        size = math.prod(shape) * dtype.itemsize
        start = -(-room[dtype] // _LINE_BYTES) * _LINE_BYTES
        if places is not None and size >= _LARGE_BYTES:
            start += (places[i] - start) % _PAGE_BYTES // _LINE_BYTES * _LINE_BYTES
        starts.append(start)
        room[dtype] = start + size
    pools = {dtype: _zeros(size, on_device) for dtype, size in room.items()}
    return [
        pools[dtype][start : start + math.prod(shape) * dtype.itemsize].view(dtype).reshape(shape)
        for (shape, dtype), start in zip(layout, starts, strict=True)
    ]


def _zeros(size: int, on_device: bool) -> Array:
    """Zero bytes, from the beginning of a page on."""
    if on_device:
        pool: Array = importlib.import_module("cupy").zeros((size,), np.uint8)
        return pool
    raw = aligned_empty((size + _PAGE_BYTES,), np.uint8)
    start = -raw.ctypes.data % _PAGE_BYTES
    pool = raw[start : start + size]
    pool.fill(0)
    return pool
