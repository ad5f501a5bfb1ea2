"""Derivatives by finite differences, to hold the recorded ones against.

The five-point stencil (8 (f(x+h) - f(x-h)) - (f(x+2h) - f(x-2h))) / 12h has an error of h^4/30
times the fifth derivative from the formula and about 2e-16 |f| / h from rounding. At h = 1e-3 both
are near 1e-13 for functions of order 1, which leaves the required 1e-6 a margin of a million.
Inputs stay 2h away from kinks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import thalweg as tw

STEP = 1e-3
RTOL = 1e-6
ATOL = 1e-8  # for entries that are zero


def numerical_gradient(f: Callable[[], float], x: np.ndarray) -> np.ndarray:
    """df/dx by the five-point stencil; f reads x, which is changed in place and put back."""
    gradient = np.empty_like(x)
    for at in np.ndindex(x.shape):
        kept = x[at]
        values = {}
        for steps in (-2, -1, 1, 2):
            x[at] = kept + steps * STEP
            values[steps] = f()
        x[at] = kept
        gradient[at] = (8 * (values[1] - values[-1]) - (values[2] - values[-2])) / (12 * STEP)
    return gradient


def weighted_sum(y: Any) -> Any:
    """A scalar that depends on every element of y with a weight of its own."""
    weights = np.cos(np.arange(y.data.size)).reshape(y.shape) + 0.3
    return (y * weights).sum()


def check_gradient(f: Callable[..., Any], arrays: Sequence[np.ndarray]) -> None:
    """The gradient of f at each float64 array equals finite differences."""
    tensors = [tw.Tensor(array, requires_grad=True) for array in arrays]
    weighted_sum(f(*tensors)).backward()

    def value() -> float:
        with tw.no_grad():
            return float(weighted_sum(f(*[tw.Tensor(array) for array in arrays])))

    for i, tensor in enumerate(tensors):
        assert tensor.grad is not None, f"input {i} got no gradient"
        assert tensor.grad.dtype == tensor.dtype
        expected = numerical_gradient(value, arrays[i])
        np.testing.assert_allclose(
            tensor.grad.data, expected, rtol=RTOL, atol=ATOL, err_msg=f"input {i}"
        )


def check_second_derivative(f: Callable[..., Any], arrays: Sequence[np.ndarray]) -> None:
    """The gradient with create_graph has itself a gradient that equals finite differences.

    The factor x keeps the result a function of x where the gradient is constant.
    """

    def first(*tensors: Any) -> Any:
        inputs = [x if x.requires_grad else x.requires_grad_() for x in tensors]
        with tw.enable_grad():
            slopes = tw.grad(weighted_sum(f(*inputs)), inputs, create_graph=True)
            return tw.concatenate(
                [(g * g * x).reshape(-1) for g, x in zip(slopes, inputs, strict=True)]
            )

    check_gradient(first, arrays)
