"""Operands of products, in every layout, and what their results are held against."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from thalweg import _core

Array = npt.NDArray[Any]

DType = type[np.float32] | type[np.float64]

DTYPES: list[DType] = [np.float32, np.float64]

ACTIVATIONS = ["relu", "leaky_relu", "sigmoid", "tanh", "gelu", "softplus"]


# Elements of K in a block at most; the sum of a block is one chain of multiply-adds.
DEPTH: dict[DType, int] = {np.float32: 384, np.float64: 192}


# Ways to lay a matrix out; each returns an equal matrix.
LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "rows": lambda x: x,
    "columns": lambda x: np.asfortranarray(x),
    "stepped": lambda x: _inside(x, 2, 3),
    "padded": lambda x: _inside(x, 1, 1, padding=5),
    "aliasing": lambda x: _inside(x, 1, 1, padding=-x.shape[-1] % 1024),
    "reversed": lambda x: x[..., ::-1, ::-1].copy()[..., ::-1, ::-1],
    "reversed columns": lambda x: x[..., ::-1].copy(order="F")[..., ::-1],
}


def _inside(x: Array, row_step: int, column_step: int, padding: int = 0) -> Array:
    rows, columns = x.shape[-2:]
    frame = np.full((*x.shape[:-2], rows * row_step, columns * column_step + padding), 7, x.dtype)
    view = frame[..., : rows * row_step : row_step, : columns * column_step : column_step]
    view[...] = x
    return view


def integers(rng: np.random.Generator, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    return rng.integers(-8, 9, shape).astype(dtype)


def bits(x: Array) -> Array:
    return np.ascontiguousarray(x).view(np.uint32 if x.dtype == np.float32 else np.uint64)


def assert_same_bits(x: Array, y: Array) -> None:
    np.testing.assert_array_equal(bits(x), bits(y))


def assert_exact(a: Array, b: Array) -> None:
    np.testing.assert_array_equal(
        _core.matmul(a, b), np.matmul(a.astype(np.float64), b.astype(np.float64))
    )


BATCHES = [
    ((7, 4, 3), (7, 3, 5)),
    ((7, 4, 3), (3, 5)),
    ((4, 3), (7, 3, 5)),
    ((2, 1, 4, 3), (5, 3, 6)),
    ((2, 5, 4, 3), (1, 5, 3, 6)),
    ((1, 4, 3), (9, 3, 6)),
    ((3, 1, 2, 1, 4, 3), (1, 5, 1, 2, 3, 2)),
    ((300, 8, 8), (300, 8, 8)),
    ((3, 200, 90), (3, 90, 130)),
    ((3,), (3,)),
    ((3,), (3, 5)),
    ((4, 3), (3,)),
    ((3,), (7, 3, 5)),
    ((7, 4, 3), (3,)),
    ((0, 4, 3), (3, 5)),
    ((0, 4, 3), (1, 3, 5)),
    ((2, 0, 3), (3, 5)),
    ((2, 4, 0), (0, 5)),
    ((2, 4, 3), (3, 0)),
    ((0,), (0,)),
    ((0, 0), (0, 0)),
]
