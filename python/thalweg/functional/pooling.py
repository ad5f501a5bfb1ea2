"""Max and mean over windows of images, and normalisation across neighbouring channels.

Images are (N, C, H, W), laid out in memory as planes or channels-last (a transposed view of an
(N, H, W, C) array); results have the layout of x, and the same bits in both.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from .. import _core
from ..autograd import is_grad_enabled
from ..backend import Array, ArrayLike
from ..recording import constant
from ..variable import array_of, data_of, first_order, record
from .differentiate import differentiate
from .elementwise import add, mul, pow, square
from .shape import concatenate, index

T = TypeVar("T")
Pair = int | tuple[int, int]


def max_pool2d(
    x: T,
    kernel: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    *,
    activation: str | None = None,
) -> tuple[T, Any]:
    """The largest element of each window, activated.

    Args:
        x: (N, C, H, W).
        kernel: rows and columns of a window, one number or a pair, as for the options below.
        stride: from window to window; default `kernel`.
        padding: rows and columns around x that no window chooses, at most half a window.
        dilation: from element to element of a window.
        ceil_mode: windows may reach beyond the padding at the end, if they begin before it.
        activation: None or "relu", which is applied in the same pass.

    Returns:
        y (N, C, OH, OW), OH = floor((H + 2 padding - dilation (kernel - 1) - 1) / stride) + 1, and
        what `max_pool2d_backward` needs. Of equal elements the first is the largest; NaN is larger
        than all numbers, and the last of several is chosen.

    Raises:
        ValueError: x that is not 4-d, a window larger than the padded x or one that sees padding
            alone, options out of range.

    >>> max_pool2d(np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4), 2)[0]
    array([[[[ 5.,  7.],
             [13., 15.]]]], dtype=float32)
    """
    array = array_of(x)
    y, saved = _core.max_pool2d(
        data_of(x), kernel, stride, padding, dilation, ceil_mode, activation=activation
    )

    def backward(dy: Any) -> Any:
        return (_hand_to_largest(dy, array, saved),)

    return record(y, backward, x), saved


def _hand_to_largest(dy: Any, x: Array, saved: Any) -> Any:
    dx = _core.max_pool2d_backward(data_of(dy), x, saved)
    return record(dx, lambda ddx: (_pick_largest(ddx, x, saved),), dy)


def _pick_largest(ddx: Any, x: Array, saved: Any) -> Any:
    """The elements of ddx where x's windows had their largest."""
    y = _core.max_pool2d_pick(data_of(ddx), saved)
    return record(y, lambda dy: (_hand_to_largest(dy, x, saved),), ddx)


def max_pool2d_backward(dy: ArrayLike, x: ArrayLike, saved: Any) -> Array:
    """dx: each dy where the window had its largest element, 0 elsewhere. Arrays only."""
    return _core.max_pool2d_backward(data_of(dy), data_of(x), saved)


def avg_pool2d(
    x: T,
    kernel: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> T:
    """The mean of each window.

    Args:
        x, kernel, stride, padding, ceil_mode: as for `max_pool2d`.
        count_include_pad: padding counts as zeros, as PyTorch's default has it; otherwise a mean
            is over the elements of x alone.

    Returns:
        (N, C, OH, OW). A window is summed row by row in the dtype of x, then divided.

    Raises:
        ValueError: as for `max_pool2d`.
    """
    options = (kernel, stride, padding, ceil_mode, count_include_pad)
    array = array_of(x)
    y = _core.avg_pool2d(data_of(x), *options)
    return record(y, lambda dy: (_spread_means(dy, array, options),), x)


def _spread_means(dy: Any, x: Array, options: Any) -> Any:
    dx = _core.avg_pool2d_backward(data_of(dy), x, *options)
    return record(dx, lambda ddx: (avg_pool2d(ddx, *options),), dy)


def avg_pool2d_backward(
    dy: ArrayLike,
    x: ArrayLike,
    kernel: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Array:
    """dx: the sum of dy / elements over the windows that see an element. Arrays only."""
    return _core.avg_pool2d_backward(
        data_of(dy), data_of(x), kernel, stride, padding, ceil_mode, count_include_pad
    )


def global_avg_pool2d(x: T) -> T:
    """The mean over all positions: (N, C, H, W) -> (N, C, 1, 1) (Lin, Chen & Yan 2014).

    `avg_pool2d` with one window; ValueError as there, also where there are no positions.
    """
    return avg_pool2d(x, tuple(array_of(x).shape[-2:]))


def local_response_norm(
    x: T, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> T:
    """x / (k + alpha / size * sum of x² over neighbouring channels) ** beta.

    The window of channel c is [c - size // 2, c + (size - 1) // 2]. PyTorch's definition; the
    paper's alpha is alpha / size here (Krizhevsky, Sutskever & Hinton 2012, section 3.3, with
    size 5, k 2, alpha 5e-4, beta 3/4).

    Args:
        x: (N, C, H, W).
        size: channels of a window.

    Raises:
        ValueError: x that is not 4-d, size below 1.
    """
    y = _core.local_response_norm(data_of(x), size, alpha, beta, k)

    def formula(x: Any) -> Any:
        n, c, h, w = array_of(x).shape
        pads = [constant(np.zeros((n, p, h, w), x.dtype)) for p in (size // 2, (size - 1) // 2)]
        squares = concatenate([pads[0], square(x), pads[1]], 1)
        total = index(squares, np.s_[:, 0:c])
        for j in range(1, size):
            total = add(total, index(squares, np.s_[:, j : j + c]))
        return mul(x, pow(add(mul(total, alpha / size), k), -beta))

    def backward(dy: Any) -> Any:
        if is_grad_enabled():
            return differentiate(formula, (x,), dy)
        dx = _core.local_response_norm_backward(dy.data, data_of(x), size, alpha, beta, k)
        return first_order("local_response_norm", (dx,), dy)

    return record(y, backward, x)


def local_response_norm_backward(
    dy: ArrayLike,
    x: ArrayLike,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
) -> Array:
    """dx of `local_response_norm`. Arrays only."""
    return _core.local_response_norm_backward(data_of(dy), data_of(x), size, alpha, beta, k)
