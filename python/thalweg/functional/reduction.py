"""Means, extremes, norms and softmax. Sums are in `shape`, being linear."""

from __future__ import annotations

import builtins
import math
from typing import Any, TypeVar

import numpy as np

from .. import _core
from ..recording import constant
from ..variable import array_of, data_of, needs_grad, operands, record
from .elementwise import add, div, exp, log, mul, neg, sqrt, square, sub
from .masks import choose, compare, mask
from .shape import Axis, expand_reduced, reduced_shape, reshape, sum

T = TypeVar("T")


def _count(x: Any, axis: Axis) -> int:
    array = array_of(x)
    kept = math.prod(reduced_shape(array.shape, axis))
    return array.size // kept if kept else 0


def mean(x: T, axis: Axis = None, keepdims: bool = False) -> T:
    """Mean over `axis`, all axes by default."""
    array = array_of(x)
    n = builtins.max(_count(x, axis), 1)
    y = _core.mean(data_of(x), axis, keepdims=keepdims)
    return record(y, lambda dy: (expand_reduced(div(dy, n), array.shape, axis),), x)


def var(x: T, axis: Axis = None, keepdims: bool = False, correction: int = 1) -> T:
    """Sum of squared deviations from the mean over (n - correction)."""
    n = _count(x, axis)
    if n <= correction:
        raise ValueError(f"var: expected more than {correction} elements, got {n}")
    deviation = sub(x, mean(x, axis, keepdims=True))
    return div(sum(square(deviation), axis, keepdims), n - correction)


def std(x: T, axis: Axis = None, keepdims: bool = False, correction: int = 1) -> T:
    """The square root of `var`."""
    return sqrt(var(x, axis, keepdims, correction))


def max(x: T, axis: Axis = None, keepdims: bool = False) -> T:
    """The largest element; equal ones share the gradient equally."""
    return _extreme(x, _core.max(data_of(x), axis, keepdims=keepdims), axis)


def min(x: T, axis: Axis = None, keepdims: bool = False) -> T:
    """The smallest element; equal ones share the gradient equally."""
    return _extreme(x, _core.min(data_of(x), axis, keepdims=keepdims), axis)


def _extreme(x: T, y: Any, axis: Axis) -> T:
    array = array_of(x)

    def backward(dy: T) -> Any:
        kept = reduced_shape(array.shape, axis)
        hits = mask(compare(array, "==", y.reshape(kept)), array.dtype)
        share = _core.div(hits, _core.sum(hits, axis, keepdims=True))
        return (mul(expand_reduced(dy, array.shape, axis), share),)

    return record(y, backward, x)


def norm(x: T, axis: Axis = None, keepdims: bool = False) -> T:
    """The Euclidean norm sqrt(sum x*x); its derivative at 0 is taken as 0.

    >>> float(norm(np.float32([3, 4])))
    5.0
    """
    array = array_of(x)
    y = _core.sqrt(_core.sum_squares(data_of(x), axis, keepdims=keepdims))

    def backward(dy: T, y: T) -> Any:
        zero = mask(compare(array_of(y), "==", 0), array.dtype)
        nonzero = add(y, _core.div(zero, _core.sub(*operands(1, zero))))  # inf for 0
        return (mul(x, expand_reduced(div(dy, nonzero), array.shape, axis)),)

    return record(y, backward, x, keep_output=True)


def sum_squares(x: T, axis: Axis = None, keepdims: bool = False) -> T:
    """Sum of x*x over `axis`."""
    shape = array_of(x).shape
    y = _core.sum_squares(data_of(x), axis, keepdims=keepdims)
    return record(y, lambda dy: (mul(mul(x, 2), expand_reduced(dy, shape, axis)),), x)


def logsumexp(x: T, axis: int = -1, keepdims: bool = False) -> T:
    """log(sum(exp(x))) without overflow."""
    array = array_of(x)
    shift = _core.max(array, axis, keepdims=True)
    finite = compare(_core.abs(shift), "<", math.inf)
    shift = choose(finite, shift, constant(np.zeros((), array.dtype)))
    total = log(sum(exp(sub(x, shift)), axis, keepdims=True))
    y = add(total, shift)
    kept = list(array.shape)
    del kept[axis]
    return y if keepdims else reshape(y, kept)


def softmax(x: T, axis: int = -1) -> T:
    """exp(x) / sum(exp(x)) along `axis`, without overflow."""
    y = _core.softmax(data_of(x), axis)
    return record(y, lambda dy, y: (softmax_backward(dy, y, axis),), x, keep_output=True)


def softmax_backward(dy: T, y: Any, axis: int = -1) -> T:
    """y * (dy - sum(dy * y)), with y = softmax(x)."""

    def backward(g: T) -> Any:
        dg = softmax_backward(g, y, axis)
        if not needs_grad(y):
            return dg, None
        inner = sub(dy, sum(mul(dy, y), axis, keepdims=True))
        return dg, sub(mul(g, inner), mul(dy, sum(mul(g, y), axis, keepdims=True)))

    return record(_core.softmax_backward(data_of(dy), data_of(y), axis), backward, dy, y)


def log_softmax(x: T, axis: int = -1) -> T:
    """x - log(sum(exp(x))) along `axis`."""
    y = _core.log_softmax(data_of(x), axis)
    return record(y, lambda dy, y: (log_softmax_backward(dy, y, axis),), x, keep_output=True)


def log_softmax_backward(dy: T, y: Any, axis: int = -1) -> T:
    """dy - exp(y) * sum(dy), with y = log_softmax(x)."""

    def backward(g: T) -> Any:
        p = exp(y)
        projected = sum(mul(g, p), axis, keepdims=True)
        dp = neg(mul(mul(g, p), sum(dy, axis, keepdims=True))) if needs_grad(y) else None
        return sub(g, projected), dp

    return record(_core.log_softmax_backward(data_of(dy), data_of(y), axis), backward, dy, y)
