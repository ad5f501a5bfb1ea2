"""Geometries of pooling, its inputs in both layouts, and all of its results."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from reference.pool import Window
from thalweg import _core

Array = np.ndarray


# The networks' windows, then what they leave out: odd widths, planes in strips, wide pixels.
GEOMETRIES: list[tuple[tuple[int, ...], Window]] = [
    ((2, 3, 24, 24), Window((2, 2), (2, 2))),
    ((1, 70, 8, 8), Window((2, 2), (2, 2))),
    ((2, 17, 13, 13), Window((3, 3), (2, 2))),
    ((1, 4, 112, 112), Window((3, 3), (2, 2), (0, 0), (1, 1), True)),
    ((2, 33, 14, 14), Window((3, 3), (1, 1), (1, 1))),
    ((1, 5, 20, 37), Window((3, 3), (2, 2), (1, 1))),
    ((2, 16, 7, 7), Window((7, 7), (1, 1))),
    ((1, 3, 9, 31), Window((2, 5), (3, 1), (1, 2), (2, 1))),
    ((1, 2, 11, 12), Window((3, 2), (2, 3), (1, 1), (1, 2), True)),
    ((2, 1, 5, 6), Window((1, 1), (3, 2))),
    ((1, 1, 300, 130), Window((3, 3), (2, 2), (1, 1))),
    ((1, 2, 20, 20), Window((17, 16), (1, 2), (8, 0))),
    ((2, 3, 1, 1), Window((1, 1), (1, 1))),
    ((1, 272, 6, 7), Window((5, 4), (1, 1), (2, 1))),
]


LAYOUTS = ["planes", "channels-last"]

rows = pytest.mark.parametrize(("shape", "window"), GEOMETRIES, ids=[str(g) for g in GEOMETRIES])


def drawn(shape: tuple[int, ...], dtype: Any = np.float32, seed: int = 0) -> Array:
    """Normal values with ties: a third of them are rounded to halves."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    return np.where(rng.random(shape) < 0.3, np.round(2 * x) / 2, x).astype(dtype)


def laid(x: Array, layout: str) -> Array:
    if layout == "planes":
        return np.ascontiguousarray(x)
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def max_pool(x: Array, window: Window, **options: Any) -> tuple[Array, Any]:
    return _core.max_pool2d(x, *window, **options)


def mean_options(window: Window, padding: bool) -> tuple[Any, ...]:
    return (*window[:3], window.ceil_mode, padding)


def everything(x: Array, window: Window, layout: str) -> list[Array]:
    """All results of all kernels of this family on one x."""
    x = laid(x, layout)
    results = []
    for activation in (None, "relu"):
        y, saved = max_pool(x, window, activation=activation)
        dy = laid(drawn(y.shape, x.dtype, 1), layout)
        dx = _core.max_pool2d_backward(dy, x, saved)
        results += [y, saved[0], dx, _core.max_pool2d_pick(drawn(x.shape, x.dtype, 2), saved)]
    if window.dilation == (1, 1):
        for padding in (True, False):
            y = _core.avg_pool2d(x, *mean_options(window, padding))
            dy = laid(drawn(y.shape, x.dtype, 1), layout)
            results += [y, _core.avg_pool2d_backward(dy, x, *mean_options(window, padding))]
    return results


def same_bits(a: list[Array], b: list[Array]) -> bool:
    return all(
        p.dtype == q.dtype and np.array_equal(p.view(f"u{p.itemsize}"), q.view(f"u{q.itemsize}"))
        for p, q in zip(map(np.ascontiguousarray, a), map(np.ascontiguousarray, b), strict=True)
    )
