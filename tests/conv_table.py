"""Layouts of images, and the three calls of a convolution."""

from __future__ import annotations

from typing import Any

import numpy as np

import reference.conv as ref
from thalweg import _core

Array = ref.Array
DTYPES = [np.float32, np.float64]
LAYOUTS = {
    "NCHW": lambda x: np.ascontiguousarray(x),
    "NHWC": lambda x: x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2),
    "strided": lambda x: np.repeat(np.repeat(x, 2, 1), 2, 3)[:, ::2, :, ::2],
    "reversed": lambda x: x[::-1, ::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1, ::-1],
}


def run_all(
    x: Array, w: Array, b: Array, dy: Array, g: ref.Geometry, **options: Any
) -> list[Array]:
    """y, dx, dw."""
    return [
        _core.conv2d(x, w, b, **g._asdict(), **options),
        _core.conv2d_data_gradient(dy, w, x.shape[2:], **g._asdict(), **options),
        _core.conv2d_weight_gradient(dy, x, w.shape[2:], **g._asdict(), **options),
    ]


def drawn(*shape: int, seed: int = 0, dtype: Any = np.float32) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)
