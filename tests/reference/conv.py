"""2-D convolution in float64, tap by tap, and as the product of lowered matrices."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
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


def phase_patches(
    dy: Array, w: Array, phase: tuple[int, int], size: Sequence[int], g: Geometry
) -> tuple[Array, Array]:
    """The two factors of dx at the positions `phase` modulo the stride, `size` of them in an image.

    (positions, K) and (K, C), K in the order of kernel rows, kernel columns and channels of dy.
    """
    meeting = [  # the offset in dy of each tap that meets these positions
        [(k, at // s) for k in range(n) if (at := i + p - k * d) % s == 0]
        for n, i, p, d, s in zip(
            w.shape[2:], phase, g.padding[::2], g.dilation, g.stride, strict=True
        )
    ]
    taps = list(itertools.product(*meeting))
    reach = max((abs(offset) for axis in meeting for _, offset in axis), default=0)
    padded = np.pad(dy, ((0, 0), (0, 0), (reach, reach + size[0]), (reach, reach + size[1])))
    seen = [
        padded[:, :, reach + i : reach + i + size[0], reach + j : reach + j + size[1]]
        for (_, i), (_, j) in taps
    ]
    weights = [w[:, :, k, m] for (k, _), (m, _) in taps]
    rows = np.stack([s.transpose(0, 2, 3, 1) for s in seen], 3) if taps else np.zeros(0, dy.dtype)
    columns = np.concatenate([*weights, np.zeros((0, w.shape[1]), w.dtype)])
    return rows.reshape(len(dy) * size[0] * size[1], len(columns)), columns


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
