"""2-D convolution in float64, tap by tap, and as the product of lowered matrices."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Geometry(NamedTuple):
    """`padding` is above, below, left, right, as in `_core`."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


PLAIN = Geometry()


def patches(x: Array, kernel: tuple[int, int], g: Geometry) -> Array:
    """(N, H', W', kernel height, kernel width, C): what each output sees."""
    above, below, left, right = g.padding
    x = np.pad(x, ((0, 0), (0, 0), (above, below), (left, right)))
    spans = [d * (k - 1) + 1 for d, k in zip(g.dilation, kernel, strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(x, spans, (2, 3))  # type: ignore[call-overload]
    windows = windows[:, :, :: g.stride[0], :: g.stride[1], :: g.dilation[0], :: g.dilation[1]]
    return windows.transpose(0, 2, 3, 4, 5, 1)


def conv2d(x: Array, w: Array, b: Array | None = None, g: Geometry = PLAIN) -> Array:
    n, c = x.shape[:2]
    seen = patches(x, w.shape[2:], g)
    seen = seen.reshape(*seen.shape[:5], g.groups, c // g.groups)
    blocks = w.reshape(g.groups, w.shape[0] // g.groups, *w.shape[1:])
    y = np.einsum("nhwklgc,gockl->ngohw", seen, blocks).reshape(n, w.shape[0], *seen.shape[1:3])
    return y if b is None else y + b[:, None, None]


def weight_gradient(dy: Array, x: Array, kernel: tuple[int, int], g: Geometry) -> Array:
    n, o = dy.shape[:2]
    seen = patches(x, kernel, g)
    seen = seen.reshape(*seen.shape[:5], g.groups, x.shape[1] // g.groups)
    parts = dy.reshape(n, g.groups, o // g.groups, *dy.shape[2:])
    dw = np.einsum("nhwklgc,ngohw->gockl", seen, parts)
    return dw.reshape(o, x.shape[1] // g.groups, *kernel)


def data_gradient(dy: Array, w: Array, size: tuple[int, int], g: Geometry) -> Array:
    """Each element of dy scattered to what it has seen."""
    n, o = dy.shape[:2]
    parts = dy.reshape(n, g.groups, o // g.groups, *dy.shape[2:])
    blocks = w.reshape(g.groups, o // g.groups, *w.shape[1:])
    above, below, left, right = g.padding
    dx = np.zeros((n, w.shape[1] * g.groups, size[0] + above + below, size[1] + left + right))
    for k in range(w.shape[2]):
        for m in range(w.shape[3]):
            rows = slice(k * g.dilation[0], None, g.stride[0])
            columns = slice(m * g.dilation[1], None, g.stride[1])
            share = np.einsum("ngohw,goc->ngchw", parts, blocks[:, :, :, k, m])
            seen = dx[:, :, rows, columns][:, :, : dy.shape[2], : dy.shape[3]]
            seen += share.reshape(seen.shape)
    return dx[:, :, above : above + size[0], left : left + size[1]]


def weight_blocks(images: int, rows: int, columns: int, depth: int) -> list[tuple[slice, slice]]:
    """The blocks of pixels whose sums are chains: (images, rows) of each one.

    Whole rows of an image, or whole images, of `depth` pixels in all at most (or one row), as
    equal as can be, the larger ones first.
    """

    def cut(n: int, parts: int) -> list[slice]:
        ends = [n // parts * i + min(i, n % parts) for i in range(parts + 1)]
        return [slice(a, b) for a, b in itertools.pairwise(ends)]

    fit = max(1, depth // columns)
    whole = min(max(fit // rows, 1), images)
    return [
        (some, part)
        for some in cut(images, -(-images // whole))
        for part in cut(rows, max(1, -(-rows // fit)))
    ]
