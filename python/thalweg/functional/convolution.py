"""2-D convolution. Its gradients are convolutions too, each a function of its own with gradients.

All three are linear in both of their arrays, and the gradients of each one are the other two, so
that derivatives of any order are defined.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from .. import _core
from ..backend import Array, ArrayLike
from ..variable import array_of, data_of, needs_grad, record, refuse_to_record
from .product import ACTIVATION_BACKWARD
from .shape import sum

T = TypeVar("T")

Pair = tuple[int, int]
Size = int | Sequence[int]


class Options(NamedTuple):
    """What the three calls of `_core` share; `padding` is above, below, left, right."""

    stride: Pair
    padding: tuple[int, int, int, int]
    dilation: Pair
    groups: int
    precision: str | None


def pair(name: str, value: Size) -> Pair:
    """(height, width) from one integer for both, or from two."""
    if isinstance(value, int) or hasattr(value, "__index__"):
        return int(value), int(value)
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
        raise ValueError(f"conv2d: {name} must be an integer or a pair of them, got {value!r}")
    return int(value[0]), int(value[1])


def paddings(
    padding: Size | str, kernel: Sequence[int], stride: Pair, dilation: Pair
) -> tuple[int, int, int, int]:
    """Zeros above, below, left and right; "same" adds one more below and right if need be."""
    if not isinstance(padding, str):
        height, width = pair("padding", padding)
        return height, height, width, width
    if padding == "valid":
        return 0, 0, 0, 0
    if padding != "same":
        raise ValueError(f"conv2d: padding must be numbers, 'same' or 'valid', got {padding!r}")
    if stride != (1, 1):
        raise ValueError(f"conv2d: padding='same' needs stride 1, got {stride}")
    height, width = (d * (k - 1) for d, k in zip(dilation, kernel, strict=True))
    return height // 2, height - height // 2, width // 2, width - width // 2


def _options(
    weight: Any,
    stride: Size,
    padding: Size | str,
    dilation: Size,
    groups: int,
    precision: str | None = None,
) -> Options:
    steps, spacing = pair("stride", stride), pair("dilation", dilation)
    kernel = array_of(weight).shape[2:]
    if isinstance(padding, str) and len(kernel) != 2:
        raise ValueError(f"conv2d: weight must have 4 axes, got shape {array_of(weight).shape}")
    around = paddings(padding, kernel, steps, spacing)
    return Options(steps, around, spacing, groups, precision)


def conv2d(
    x: T,
    weight: Any,
    bias: Any = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    activation: str | None = None,
    precision: str | None = None,
) -> T:
    """activation(x * weight + bias), where * is cross-correlation, which networks call convolution.

    y[n, o, i, j] = sum over c, k, l of weight[o, c, k, l] x[n, c, i s + k d - p, j s + l d - p],
    with stride s, dilation d, and zeros in the padding p (LeCun et al. 1989).

    Args:
        x: (N, C, H, W) in any layout. If its channels are neighbours in memory (a view of
            (N, H, W, C)), so are those of the result, and nothing is transposed.
        weight: (O, C / groups, kernel height, kernel width).
        bias: (O,) or None.
        stride, dilation: one integer, or those of height and width.
        padding: the same, or "same" (stride 1 only: the result has x's size) or "valid" (none).
        groups: output group g of O / groups channels sees input group g of C / groups channels.
        activation: "relu", "sigmoid", "tanh", "softplus", "gelu" (the last on arrays only).
        precision: "strict", "highest", "high" or "medium" as in `matmul`; default
            `set_matmul_precision`'s. Without AMX the last two let float32 kernels of 3 x 3 and
            5 x 5 at stride 1 take a quarter to a third of the products, with the rounding of "high"
            (docs/numerics.md). Arrays of bfloat16 (ml_dtypes) are summed in float32 and give
            bfloat16, rounded once; their bias may be float32.

    Returns:
        (N, O, H', W'), H' = floor((H + 2 p - d (kernel height - 1) - 1) / s) + 1.

    Raises:
        ValueError: shapes that do not fit, a kernel larger than the padded x, channels that are no
            multiples of `groups`.
        TypeError: dtypes that differ or are not float32, float64 or bfloat16.

    >>> import numpy as np
    >>> conv2d(np.ones((1, 1, 3, 3), np.float32), np.ones((1, 1, 2, 2), np.float32))[0, 0]
    array([[4., 4.],
           [4., 4.]], dtype=float32)
    """
    if activation not in ACTIVATION_BACKWARD:
        remedy = "apply the activation to the result"
        refuse_to_record(f"conv2d(activation={activation!r})", remedy, x, weight, bias)
    options = _options(weight, stride, padding, dilation, groups, precision)
    y = _core.conv2d(
        data_of(x), data_of(weight), data_of(bias), activation=activation, **options._asdict()
    )

    def backward(dy: Any, y: Any = None) -> Any:
        dy = ACTIVATION_BACKWARD[activation](dy, y)
        dx = _data_gradient(dy, weight, _size(x), options) if needs_grad(x) else None
        dw = _weight_gradient(dy, x, _size(weight), options) if needs_grad(weight) else None
        return dx, dw, sum(dy, (0, 2, 3)) if needs_grad(bias) else None

    return record(y, backward, x, weight, bias, keep_output=activation is not None)


def _size(x: Any) -> Pair:
    height, width = array_of(x).shape[2:]
    return height, width


def _conv2d(x: Any, weight: Any, options: Options) -> Any:
    """`conv2d` with options that have been read."""
    y = _core.conv2d(data_of(x), data_of(weight), None, **options._asdict())

    def backward(dy: Any) -> Any:
        dx = _data_gradient(dy, weight, _size(x), options) if needs_grad(x) else None
        dw = _weight_gradient(dy, x, _size(weight), options) if needs_grad(weight) else None
        return dx, dw

    return record(y, backward, x, weight)


def _data_gradient(dy: Any, weight: Any, size: Pair, options: Options) -> Any:
    dx = _core.conv2d_data_gradient(data_of(dy), data_of(weight), size, **options._asdict())

    def backward(ddx: Any) -> Any:
        ddy = _conv2d(ddx, weight, options) if needs_grad(dy) else None
        dw = _weight_gradient(dy, ddx, _size(weight), options) if needs_grad(weight) else None
        return ddy, dw

    return record(dx, backward, dy, weight)


def _weight_gradient(dy: Any, x: Any, kernel: Pair, options: Options) -> Any:
    dw = _core.conv2d_weight_gradient(data_of(dy), data_of(x), kernel, **options._asdict())

    def backward(ddw: Any) -> Any:
        ddy = _conv2d(x, ddw, options) if needs_grad(dy) else None
        dx = _data_gradient(dy, ddw, _size(x), options) if needs_grad(x) else None
        return ddy, dx

    return record(dw, backward, dy, x)


def conv2d_backward(
    dy: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    precision: str | None = None,
) -> tuple[Array, Array, Array]:
    """dx, dw, db of `conv2d` without an activation. Arrays only.

    Args:
        dy: (N, O, H', W'), the gradient of the result; the other arguments are `conv2d`'s.
    """
    dy, x, weight = data_of(dy), data_of(x), data_of(weight)
    options = _options(weight, stride, padding, dilation, groups, precision)._asdict()
    dw = _core.conv2d_weight_gradient(dy, x, _size(weight), **options)
    dx = _core.conv2d_data_gradient(dy, weight, _size(x), **options)
    if dw.dtype.name != "bfloat16":
        return dx, dw, _core.sum(dy, (0, 2, 3))
    db = _core.sum(np.asarray(dy).astype(np.float32), (0, 2, 3))
    return dx, dw, db.astype(dw.dtype)
