"""Conditions and choices. Where a step is recorded they are launches; elsewhere NumPy's.

A mask is an array of 1 and 0 in the dtype of what it multiplies.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .. import _core
from ..backend import Array
from ..recording import active
from ..variable import array_of, operands

COMPARISONS = {
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "==": np.equal,
    "!=": np.not_equal,
}


def compare(a: Any, sign: str, b: Any) -> Array:
    """`a sign b`, element by element, as booleans."""
    x, y = operands(a, b)
    if active() is None:
        return np.asarray(COMPARISONS[sign](array_of(x), array_of(y)))
    return _core.cast(_compared(x, sign, y), "bool")


def _compared(a: Any, sign: str, b: Any) -> Array:
    if sign in (">", ">="):
        return _compared(b, sign.replace(">", "<"), a)
    if sign == "<":
        return _core.less(a, b)
    equal = _core.equal(a, b)
    if sign == "<=":
        return _core.add(_core.less(a, b), equal)
    return equal if sign == "==" else _inverse(equal)


def mask(condition: Any, dtype: npt.DTypeLike) -> Array:
    """1 where `condition`, else 0."""
    if active() is None:
        return np.asarray(condition, dtype)
    return _core.cast(condition, np.dtype(dtype).name)


def choose(condition: Array, a: Array, b: Array) -> Array:
    """a where `condition`, else b, broadcast."""
    if active() is None:
        return np.asarray(np.where(condition, a, b))
    shape = np.broadcast_shapes(condition.shape, a.shape, b.shape)
    one = mask(np.broadcast_to(condition, shape), a.dtype)
    # What relu_backward lets through is what lies where its second argument is positive.
    first = _core.relu_backward(np.broadcast_to(a, shape), one)
    return _core.join(first, _core.relu_backward(np.broadcast_to(b, shape), _inverse(one)))


def _inverse(one: Array) -> Array:
    return _core.sub(*operands(1, one))
