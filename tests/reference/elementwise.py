"""Element-wise functions in 80-bit arithmetic, each from its definition: 11 bits to spare beyond
float64, so that errors of a fraction of a unit in the last place can be seen.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

ONE = np.longdouble(1)
TWO_BY_ROOT_PI = np.longdouble("1.12837916709551257389615890312154517")
ROOT_HALF = np.longdouble("0.70710678118654752440084436210484904")
ROOT_TWO_PI = np.longdouble("2.50662827463100050241576528481104525")


def long(x: Array) -> Array:
    return np.asarray(x, np.longdouble)


def erf(x: Array) -> Array:
    """Kummer's series, whose terms are all positive: no cancellation at any x."""
    x = np.clip(long(x), -7, 7)
    term = x * TWO_BY_ROOT_PI * np.exp(-x * x)
    total = term.copy()
    for n in range(1, 250):
        term = term * (2 * x * x / (2 * n + 1))
        total += term
    return total


def sigmoid(x: Array) -> Array:
    return ONE / (1 + np.exp(-long(x)))


def softplus(x: Array) -> Array:
    return np.logaddexp(long(x), np.longdouble(0))


def normal_cdf(x: Array) -> Array:
    return (1 + erf(long(x) * ROOT_HALF)) / 2


def normal_density(x: Array) -> Array:
    return np.exp(-(long(x) ** 2) / 2) / ROOT_TWO_PI


def gelu(x: Array) -> Array:
    return long(x) * normal_cdf(x)


def gelu_derivative(x: Array) -> Array:
    return normal_cdf(x) + long(x) * normal_density(x)
