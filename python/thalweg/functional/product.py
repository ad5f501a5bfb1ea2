"""Matrix products: `matmul` with NumPy's shapes, and the layers that are one product."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

from .. import _core
from ..backend import ArrayLike
from ..variable import Variable, array_of, data_of, needs_grad, record, refuse_to_record
from .activation import relu_backward, sigmoid_backward, softplus_backward, tanh_backward
from .elementwise import add
from .shape import permute, reshape, sum_to, transpose

T = TypeVar("T")

# Activations that a product can apply and whose gradient needs their output alone.
ACTIVATION_BACKWARD: dict[str | None, Callable[[Any, Any], Any]] = {
    None: lambda dy, y: dy,
    "relu": relu_backward,
    "sigmoid": sigmoid_backward,
    "tanh": tanh_backward,
    "softplus": softplus_backward,
}


def matmul(
    a: T,
    b: Any,
    *,
    out: ArrayLike | None = None,
    accumulate: bool = False,
    bias: Any = None,
    activation: str | None = None,
    precision: str | None = None,
) -> T:
    """activation(a @ b + bias), with the shapes of numpy.matmul; transposed views are not copied.

    Args:
        a: (..., M, K) or (K,).
        b: (..., K, N) or (K,); leading axes broadcast.
        out: array for the result; not where the call is recorded. bfloat16 operands (ml_dtypes) are
            summed in float32 and give bfloat16 unless `out` is float32.
        accumulate: add the product to what `out` holds.
        bias: (N,), added to every row.
        activation: "relu", "sigmoid", "tanh", "softplus", "gelu" (the last on arrays only).
        precision: of float32, default `set_matmul_precision`'s: "strict" (multiply-adds only),
            "highest" (their bound, by the fastest path under it), "high" (three bfloat16 products
            where that is faster, |dC| <= 3.1e-5 |A||B|), "medium" (operands rounded to bfloat16).
            Gradients take the call's.

    Raises:
        ValueError: inner dimensions that differ, leading axes that do not broadcast, an `out` that
            overlaps an input.
        TypeError: dtypes that differ or are not float32, float64 or bfloat16.
        RuntimeError: `out` or "gelu" in a recorded call.

    >>> import numpy as np
    >>> matmul(np.float32([[1, 2]]), np.float32([[3], [4]]))
    array([[11.]], dtype=float32)
    """
    if not (isinstance(a, Variable) or isinstance(b, Variable) or isinstance(bias, Variable)):
        result: Any = _core.matmul(
            a,
            b,
            out=out,
            accumulate=accumulate,
            bias=bias,
            activation=activation,
            precision=precision,
        )
        product: T = result
        return product
    if out is not None:
        refuse_to_record("matmul(out=)", "leave out away, or use no_grad()", a, b, bias)
    if activation not in ACTIVATION_BACKWARD:
        remedy = "apply the activation to the result"
        refuse_to_record(f"matmul(activation={activation!r})", remedy, a, b, bias)
    y = _core.matmul(
        data_of(a),
        data_of(b),
        out=out,
        accumulate=accumulate,
        bias=data_of(bias),
        activation=activation,
        precision=precision,
    )

    def backward(dy: Any, y: Any = None) -> Any:
        dy = ACTIVATION_BACKWARD[activation](dy, y)
        da = _gradient_a(dy, a, b, precision) if needs_grad(a) else None
        db = _gradient_b(dy, a, b, precision) if needs_grad(b) else None
        return da, db, sum_to(dy, array_of(bias).shape) if needs_grad(bias) else None

    return record(y, backward, a, b, bias, keep_output=activation is not None)


def _matrices(dy: Any, a: Any, b: Any) -> tuple[Any, Any, Any]:
    """The operands with the axes that matmul adds to vectors and removes again."""
    shape_a, shape_b = array_of(a).shape, array_of(b).shape
    shape = list(dy.shape)
    if len(shape_b) == 1:
        b = reshape(b, (*shape_b, 1))
        shape.append(1)
    if len(shape_a) == 1:
        a = reshape(a, (1, *shape_a))
        shape.insert(len(shape) - 1, 1)
    return reshape(dy, shape), a, b


def _gradient_a(dy: Any, a: Any, b: Any, precision: str | None) -> Any:
    shape = array_of(a).shape
    dy, a, b = _matrices(dy, a, b)
    da = matmul(dy, transpose(b), precision=precision)
    return reshape(sum_to(da, array_of(a).shape), shape)


def _gradient_b(dy: Any, a: Any, b: Any, precision: str | None) -> Any:
    shape = array_of(b).shape
    dy, a, b = _matrices(dy, a, b)
    if array_of(b).ndim == 2:  # one product over all leading axes instead of a sum of products
        a, dy = _rows(a), _rows(dy)
    db = matmul(transpose(a), dy, precision=precision)
    return reshape(sum_to(db, array_of(b).shape), shape)


def _rows(x: T) -> T:
    """x with all leading axes folded into one: (..., K) -> (M, K)."""
    shape = array_of(x).shape
    return x if len(shape) == 2 else reshape(x, (math.prod(shape[:-1]), shape[-1]))


def linear(x: T, weight: Any, bias: Any = None, *, activation: str | None = None) -> T:
    """activation(x @ weight.T + bias).

    Args:
        x: (..., I).
        weight: (O, I), as PyTorch keeps it.
        bias: (O,) or None.
        activation: as for `matmul`.

    Returns:
        (..., O).
    """
    if activation not in ACTIVATION_BACKWARD:
        remedy = "apply the activation to the result"
        refuse_to_record(f"linear(activation={activation!r})", remedy, x, weight, bias)
    transposed = array_of(weight).swapaxes(-1, -2)
    y = _core.matmul(data_of(x), transposed, bias=data_of(bias), activation=activation)

    def backward(dy: Any, y: Any = None) -> Any:
        dy = ACTIVATION_BACKWARD[activation](dy, y)
        dx = matmul(dy, weight) if needs_grad(x) else None
        dw = db = None
        if needs_grad(weight):
            dw = matmul(transpose(_rows(dy)), _rows(x))
        if needs_grad(bias):
            db = sum_to(dy, array_of(bias).shape)
        return dx, dw, db

    return record(y, backward, x, weight, bias, keep_output=activation is not None)


def block_linear(x: T, weight: Any, bias: Any = None) -> T:
    """A linear layer whose weight is block-diagonal: G groups of inputs see G groups of outputs.

    Args:
        x: (..., G * I).
        weight: (G, O, I), the blocks.
        bias: (G * O,) or None.

    Returns:
        (..., G * O), computed as one batched product.
    """
    shape = array_of(x).shape
    if array_of(weight).ndim != 3:
        raise ValueError(f"block_linear: weight must be (G, O, I), got {array_of(weight).shape}")
    groups, outputs, inputs = array_of(weight).shape
    if not shape or shape[-1] != groups * inputs:
        raise ValueError(
            f"block_linear: the last axis of x must have {groups} * {inputs} = {groups * inputs} "
            f"elements, got shape {shape}"
        )
    blocks = permute(reshape(x, (math.prod(shape[:-1]), groups, inputs)), (1, 0, 2))
    y = permute(matmul(blocks, transpose(weight)), (1, 0, 2))
    y = reshape(y, (*shape[:-1], groups * outputs))
    return y if bias is None else add(y, bias)
