"""Activations, each with its gradient as an operation of its own.

The gradient is written in terms of the output y where that determines it, so that the input can be
forgotten. Called on arrays, the pairs serve a training loop written by hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

from .. import _core
from ..variable import data_of, needs_grad, record
from .elementwise import exp, mul, neg, square, sub

T = TypeVar("T")


def relu(x: T) -> T:
    """max(x, 0); its derivative at 0 is 0.

    >>> import numpy as np
    >>> relu(np.float32([-1, 2]))
    array([0., 2.], dtype=float32)
    """
    y = _core.relu(data_of(x))
    return record(y, lambda dy, y: (relu_backward(dy, y),), x, keep_output=True)


def relu_backward(dy: T, y: Any) -> T:
    """dy where y = relu(x) is positive, else 0."""
    dx = _core.relu_backward(data_of(dy), data_of(y))
    return record(dx, lambda g: (relu_backward(g, y), None), dy, y)


def leaky_relu(x: T, negative_slope: float = 0.01) -> T:
    """x where positive, else negative_slope * x (Maas 2013)."""
    y = _core.leaky_relu(data_of(x), negative_slope)
    return record(
        y, lambda dy, y: (leaky_relu_backward(dy, y, negative_slope),), x, keep_output=True
    )


def leaky_relu_backward(dy: T, y: Any, negative_slope: float = 0.01) -> T:
    """dy where y = leaky_relu(x) is positive, else negative_slope * dy."""
    dx = _core.leaky_relu_backward(data_of(dy), data_of(y), negative_slope)
    return record(dx, lambda g: (leaky_relu_backward(g, y, negative_slope), None), dy, y)


def sigmoid(x: T) -> T:
    """1 / (1 + exp(-x))."""
    y = _core.sigmoid(data_of(x))
    return record(y, lambda dy, y: (sigmoid_backward(dy, y),), x, keep_output=True)


def sigmoid_backward(dy: T, y: Any) -> T:
    """dy * y * (1 - y), with y = sigmoid(x)."""

    def backward(g: T) -> Any:
        slope = mul(mul(g, dy), sub(1, mul(y, 2))) if needs_grad(y) else None
        return sigmoid_backward(g, y), slope

    return record(_core.sigmoid_backward(data_of(dy), data_of(y)), backward, dy, y)


def tanh(x: T) -> T:
    """The hyperbolic tangent."""
    y = _core.tanh(data_of(x))
    return record(y, lambda dy, y: (tanh_backward(dy, y),), x, keep_output=True)


def tanh_backward(dy: T, y: Any) -> T:
    """dy * (1 - y * y), with y = tanh(x)."""

    def backward(g: T) -> Any:
        return tanh_backward(g, y), mul(mul(g, dy), mul(y, -2)) if needs_grad(y) else None

    return record(_core.tanh_backward(data_of(dy), data_of(y)), backward, dy, y)


def softplus(x: T) -> T:
    """log(1 + exp(x)), a smooth relu."""
    y = _core.softplus(data_of(x))
    return record(y, lambda dy, y: (softplus_backward(dy, y),), x, keep_output=True)


def softplus_backward(dy: T, y: Any) -> T:
    """dy * sigmoid(x) = dy * (1 - exp(-y)), with y = softplus(x)."""

    def backward(g: T) -> Any:
        return softplus_backward(g, y), mul(mul(g, dy), exp(neg(y))) if needs_grad(y) else None

    return record(_core.softplus_backward(data_of(dy), data_of(y)), backward, dy, y)


def gelu(x: T) -> T:
    """x * Phi(x), with Phi the standard normal distribution (Hendrycks & Gimpel 2016), exact."""
    return record(_core.gelu(data_of(x)), lambda dy: (gelu_backward(dy, x),), x)


def gelu_backward(dy: T, x: Any) -> T:
    """dy * (Phi(x) + x * phi(x)); its own derivative in x is dy * phi(x) * (2 - x * x)."""

    def backward(g: T) -> Any:
        if not needs_grad(x):
            return gelu_backward(g, x), None
        x2 = square(x)
        density = mul(exp(mul(x2, -0.5)), 1 / math.sqrt(2 * math.pi))
        return gelu_backward(g, x), mul(mul(g, dy), mul(density, sub(2, x2)))

    return record(_core.gelu_backward(data_of(dy), data_of(x)), backward, dy, x)


# Those that a fused operation applies and whose gradient their output determines.
ACTIVATIONS: dict[str | None, Callable[[Any], Any]] = {
    None: lambda x: x,
    "identity": lambda x: x,
    "relu": relu,
    "leaky_relu": leaky_relu,
    "sigmoid": sigmoid,
    "tanh": tanh,
    "softplus": softplus,
}
