"""Elementwise arithmetic with NumPy's broadcasting.

A Python scalar takes the dtype of the other operand; two arrays of different dtype are refused.
`_core` has the loops; here is which derivative belongs to which function.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

from .. import _core
from ..backend import Array, ArrayLike
from ..variable import SCALARS, array_of, data_of, needs_grad, operands, record
from .masks import choose, compare, mask
from .shape import sum_to

T = TypeVar("T")


def _shape(x: Any) -> tuple[int, ...]:
    return () if isinstance(x, SCALARS) else array_of(x).shape


# --- two operands --------------------------------------------------------------------------------
def add(a: T, b: Any) -> T:
    """a + b."""

    def backward(dy: T) -> Any:
        return (
            sum_to(dy, _shape(a)) if needs_grad(a) else None,
            sum_to(dy, _shape(b)) if needs_grad(b) else None,
        )

    return record(_core.add(*operands(a, b)), backward, a, b)


def sub(a: T, b: Any) -> T:
    """a - b."""

    def backward(dy: T) -> Any:
        return (
            sum_to(dy, _shape(a)) if needs_grad(a) else None,
            sum_to(neg(dy), _shape(b)) if needs_grad(b) else None,
        )

    return record(_core.sub(*operands(a, b)), backward, a, b)


def mul(a: T, b: Any) -> T:
    """a * b, element by element."""

    def backward(dy: T) -> Any:
        return (
            sum_to(mul(dy, b), _shape(a)) if needs_grad(a) else None,
            sum_to(mul(dy, a), _shape(b)) if needs_grad(b) else None,
        )

    return record(_core.mul(*operands(a, b)), backward, a, b)


def div(a: T, b: Any) -> T:
    """a / b."""

    def backward(dy: T, y: T) -> Any:
        da = div(dy, b)
        return (
            sum_to(da, _shape(a)) if needs_grad(a) else None,
            sum_to(neg(mul(da, y)), _shape(b)) if needs_grad(b) else None,
        )

    return record(_core.div(*operands(a, b)), backward, a, b, keep_output=True)


def pow(a: T, b: Any) -> T:
    """a ** b. The derivative in b is a**b log(a), and 0 where a is 0."""
    if isinstance(b, SCALARS):
        return _power(a, b)

    def backward(dy: T, y: T) -> Any:
        da = db = None
        if needs_grad(a):
            zero = _core.mul(_zeros(operands(a, b)[0]), _zeros(b))  # 0**0, not 0/0
            exponent = add(sub(b, 1), zero)
            da = sum_to(mul(dy, mul(pow(a, exponent), b)), _shape(a))
        if needs_grad(b):
            base: Any = operands(a, b)[0] if isinstance(a, SCALARS) else _one_where_zero(a)
            db = sum_to(mul(dy, mul(y, log(base))), _shape(b))
        return da, db

    return record(_core.pow(*operands(a, b)), backward, a, b, keep_output=True)


def _one_where_zero(x: T) -> T:
    return add(x, _zeros(x))


def _zeros(x: Any) -> Array:
    """1 where x is 0, else 0."""
    array = array_of(x)
    return mask(compare(array, "==", 0), array.dtype)


def _power(a: T, exponent: Any) -> T:
    """a to a constant; the exponents 0, 1 and 2 need no logarithm."""
    if exponent == 2:
        return square(a)
    y = _core.pow(*operands(a, exponent))
    if exponent == 0:
        return record(y, lambda dy: (mul(dy, 0),), a)
    return record(y, lambda dy: (mul(dy, mul(pow(a, exponent - 1), exponent)),), a)


def maximum(a: T, b: Any) -> T:
    """The larger of a and b; where they are equal each takes half of the gradient."""
    x, y = operands(a, b)
    return _select(_core.maximum(x, y), lambda: _core.above(x, y), a, b)


def minimum(a: T, b: Any) -> T:
    """The smaller of a and b; where they are equal each takes half of the gradient."""
    x, y = operands(a, b)
    return _select(_core.minimum(x, y), lambda: _core.above(y, x), a, b)


def _select(y: Array, share_of_a: Callable[[], Array], a: T, b: Any) -> T:
    def backward(dy: T) -> Any:
        share = share_of_a()
        return (
            sum_to(mul(dy, share), _shape(a)) if needs_grad(a) else None,
            sum_to(mul(dy, sub(1, share)), _shape(b)) if needs_grad(b) else None,
        )

    return record(y, backward, a, b)


def where(condition: ArrayLike, a: T, b: Any) -> T:
    """a where `condition`, else b."""
    condition = array_of(condition)
    if condition.dtype != bool:
        condition = condition.astype(bool)
    chosen, other = (array_of(each) for each in operands(a, b))
    if chosen.dtype != other.dtype:
        raise TypeError(f"where: b is {other.dtype} but a is {chosen.dtype}; convert one of them")
    y: Any = choose(condition, chosen, other)

    def backward(dy: T) -> Any:
        kept = mask(condition, array_of(dy).dtype)
        return (
            sum_to(mul(dy, kept), _shape(a)) if needs_grad(a) else None,
            sum_to(mul(dy, sub(1, kept)), _shape(b)) if needs_grad(b) else None,
        )

    return record(y, backward, a, b)


def clip(x: T, low: float | None = None, high: float | None = None) -> T:
    """x limited to [low, high]; no gradient where it was cut."""
    if low is None and high is None:
        raise ValueError("clip: expected low, high or both, got neither")
    array = array_of(x)
    y = array
    if low is not None:
        y = _core.maximum(*operands(y, low))
    if high is not None:
        y = _core.minimum(*operands(y, high))

    def backward(dy: T) -> Any:
        for sign, bound in ((">=", low), ("<=", high)):
            if bound is not None:
                dy = mul(dy, mask(compare(array, sign, bound), array.dtype))
        return (dy,)

    return record(y, backward, x)


# --- one operand ---------------------------------------------------------------------------------
def neg(x: T) -> T:
    """-x."""
    return record(_core.neg(data_of(x)), lambda dy: (neg(dy),), x)


def abs(x: T) -> T:
    """|x|; its derivative at 0 is taken as 0."""
    return record(_core.abs(data_of(x)), lambda dy: (mul(dy, sign(x)),), x)


def sign(x: T) -> T:
    """-1, 0 or 1; its derivative is 0."""
    return record(_core.sign(data_of(x)), lambda dy: (mul(dy, 0),), x)


def square(x: T) -> T:
    """x * x."""
    return record(_core.square(data_of(x)), lambda dy: (mul(dy, mul(x, 2)),), x)


def sqrt(x: T) -> T:
    """The square root."""
    y = _core.sqrt(data_of(x))
    return record(y, lambda dy, y: (div(dy, mul(y, 2)),), x, keep_output=True)


def reciprocal(x: T) -> T:
    """1 / x."""
    y = _core.reciprocal(data_of(x))
    return record(y, lambda dy, y: (neg(mul(dy, square(y))),), x, keep_output=True)


def exp(x: T) -> T:
    """e ** x."""
    return record(_core.exp(data_of(x)), lambda dy, y: (mul(dy, y),), x, keep_output=True)


def log(x: T) -> T:
    """The natural logarithm."""
    return record(_core.log(data_of(x)), lambda dy: (div(dy, x),), x)


def erf(x: T) -> T:
    """The error function, 2/sqrt(pi) times the integral of exp(-t*t) from 0 to x."""

    def backward(dy: T) -> Any:
        return (mul(dy, mul(exp(neg(square(x))), 2 / math.sqrt(math.pi))),)

    return record(_core.erf(data_of(x)), backward, x)
