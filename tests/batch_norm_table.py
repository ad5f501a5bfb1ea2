"""Shapes and drawn arguments for the tests of batch normalisation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from thalweg import _core

Array = np.ndarray

DTYPES = ["float32", "float64"]

# Shape and channel axis: one tile and many, planes in pieces, single planes, single channels.
SHAPES = [
    ((2, 3), 1),
    ((256, 100), 1),
    ((3000, 70), 1),
    ((37, 27), 1),
    ((2100, 33), 1),
    ((5, 4, 3, 2), 1),
    ((2, 3, 70, 71), 1),
    ((700, 5, 2, 2), 1),
    ((6, 7, 8, 9), -1),
    ((6, 7, 8, 9), 0),
    ((9, 1, 5), 1),
    ((12, 1), -1),
    ((2, 9000), 1),
]


def tolerance(dtype: str, n: int = 1) -> float:
    """Relative to results of order 1. Statistics are float64 sums for either dtype; applying them
    rounds at most 6 times. Sums of n terms grow like their square root."""
    return 8 * float(np.finfo(dtype).eps) * math.sqrt(n) + 300 * 2.0**-53


def normal(*shape: int, seed: int = 0, dtype: str = "float64", offset: float = 0.0) -> Array:
    return (np.random.default_rng(seed).normal(size=shape) + offset).astype(dtype)


class Case:
    """Drawn arguments of one call, named as in `batch_norm`."""

    def __init__(self, shape: tuple[int, ...], axis: int, dtype: str = "float64") -> None:
        channels = shape[axis]
        self.axis, self.dtype, self.n = axis, dtype, math.prod(shape) // max(1, channels)
        self.x = normal(*shape, dtype=dtype, offset=3)
        self.dy = normal(*shape, seed=1, dtype=dtype)
        self.gamma = normal(channels, seed=2, dtype=dtype, offset=1)
        self.beta = normal(channels, seed=3, dtype=dtype)
        self.running_mean = normal(channels, seed=4, dtype=dtype)
        self.running_var = np.abs(normal(channels, seed=5, dtype=dtype)) + np.asarray(0.5, dtype)
        self.residual = normal(*shape, seed=6, dtype=dtype)

    def forward(self, *, training: bool = True, **options: Any) -> tuple[Array, Any]:
        return _core.batch_norm(
            self.x,
            self.gamma,
            self.beta,
            self.running_mean,
            self.running_var,
            training=training,
            axis=self.axis,
            **options,
        )

    def backward(self, saved: Any) -> tuple[Array, ...]:
        return _core.batch_norm_backward(self.dy, self.x, self.gamma, saved, axis=self.axis)

    def along_channels(self, vector: Array) -> Array:
        shape = [1] * self.x.ndim
        shape[self.axis] = -1
        return vector.reshape(shape)


def bits(*arrays: Array) -> list[bytes]:
    return [array.tobytes() for array in arrays]
