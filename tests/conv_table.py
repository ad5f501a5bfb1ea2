"""Layouts of images, drawn geometries, and the three calls of a convolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

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


@st.composite
def cases(
    draw: st.DrawFn, dtypes: Sequence[Any] = DTYPES
) -> tuple[Array, Array, Array, Array, ref.Geometry]:
    """Integer-valued operands, whose sums are exact in any order, and a geometry."""
    small = st.integers(1, 3)
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    channels = groups * draw(st.sampled_from([1, 2, 3, 8, 17]))
    outputs = groups * draw(st.sampled_from([1, 3, 8, 16, 33]))
    kernel = (draw(st.integers(1, 5)), draw(st.integers(1, 5)))
    dilation = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    padding = tuple(draw(st.integers(0, 4)) for _ in range(4))
    size = []
    for i in range(2):
        least = dilation[i] * (kernel[i] - 1) + 1 - padding[2 * i] - padding[2 * i + 1]
        size.append(max(1, least) + draw(st.sampled_from([0, 1, 4, 9, 16])))
    g = ref.Geometry((draw(small), draw(small)), padding, dilation, groups)
    dtype = draw(st.sampled_from(dtypes))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))

    def integers(*shape: int) -> Array:
        return rng.integers(-4, 5, shape).astype(dtype)

    x = integers(draw(small), channels, *size)
    w = integers(outputs, channels // groups, *kernel)
    y = ref.conv2d(x.astype(np.float64), w.astype(np.float64), None, g)
    return x, w, integers(outputs), integers(*y.shape), g
