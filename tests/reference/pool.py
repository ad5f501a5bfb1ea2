"""Pooling and local response normalisation in float64, window by window."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Window(NamedTuple):
    """A pooling window; each pair is rows, columns."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    ceil_mode: bool = False

    def out(self, n: int, axis: int) -> int:
        """Windows along an axis of n elements."""
        k, s, p, d = (pair[axis] for pair in self[:4])
        room = n + 2 * p - d * (k - 1) - 1
        if not self.ceil_mode:
            return room // s + 1
        out = -(-room // s) + 1
        return out - 1 if (out - 1) * s >= n + p else out

    def seen(self, n: int, axis: int, o: int) -> list[int]:
        """The elements of window o."""
        k, s, p, d = (pair[axis] for pair in self[:4])
        return [i for i in range(o * s - p, o * s - p + k * d, d) if 0 <= i < n]


def windows(x: Array, window: Window) -> Iterator[tuple[int, int, Any]]:
    """(oh, ow, rows and columns that the window sees), in order."""
    for oh in range(window.out(x.shape[2], 0)):
        for ow in range(window.out(x.shape[3], 1)):
            yield oh, ow, np.ix_(window.seen(x.shape[2], 0, oh), window.seen(x.shape[3], 1, ow))


def empty(x: Array, window: Window) -> Array:
    return np.empty((*x.shape[:2], window.out(x.shape[2], 0), window.out(x.shape[3], 1)))


def chosen(values: Array) -> int:
    """The last NaN, else the first largest."""
    nans = np.flatnonzero(np.isnan(values))
    return int(nans[-1]) if len(nans) else int(np.argmax(values))


def max_pool(x: Array, window: Window) -> Array:
    y = empty(x, window)
    for oh, ow, at in windows(x, window):
        y[:, :, oh, ow] = x[(slice(None), slice(None), *at)].max((2, 3))
    return y


def max_pool_gradient(dy: Array, x: Array, window: Window) -> Array:
    dx = np.zeros(x.shape)
    for oh, ow, at in windows(x, window):
        places = list(itertools.product(at[0].ravel(), at[1].ravel()))
        for n, c in np.ndindex(*x.shape[:2]):
            h, w = places[chosen(np.array([x[n, c, h, w] for h, w in places]))]
            dx[n, c, h, w] += dy[n, c, oh, ow]
    return dx


def divisor(shape: tuple[int, ...], window: Window, oh: int, ow: int, padding: bool) -> int:
    """What the sum of a window is divided by: its elements, with padding but not beyond it."""
    sizes = []
    for axis, o in ((0, oh), (1, ow)):
        n, k = shape[2 + axis], window.kernel[axis]
        s, p = window.stride[axis], window.padding[axis]
        sizes.append(min(k, n + p - (o * s - p)) if padding else len(window.seen(n, axis, o)))
    return math.prod(sizes)


def avg_pool(x: Array, window: Window, padding: bool = True) -> Array:
    y = empty(x, window)
    for oh, ow, at in windows(x, window):
        total = x[(slice(None), slice(None), *at)].astype(np.float64).sum((2, 3))
        y[:, :, oh, ow] = total / divisor(x.shape, window, oh, ow, padding)
    return y


def avg_pool_gradient(dy: Array, x: Array, window: Window, padding: bool = True) -> Array:
    dx = np.zeros(x.shape)
    for oh, ow, at in windows(x, window):
        share = dy[:, :, oh, ow] / divisor(x.shape, window, oh, ow, padding)
        dx[(slice(None), slice(None), *at)] += share[:, :, None, None]
    return dx


def local_response_norm(x: Array, size: int, alpha: float, beta: float, k: float) -> Array:
    y = np.empty(x.shape)
    for c in range(x.shape[1]):
        window = x[:, max(0, c - size // 2) : c + (size - 1) // 2 + 1].astype(np.float64)
        y[:, c] = x[:, c] / (k + alpha / size * (window**2).sum(1)) ** beta
    return y
