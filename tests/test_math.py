"""Accuracy of the elementary functions, in units in the last place, and their special values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from reference import elementwise as reference
from thalweg import _core

Array = npt.NDArray[Any]
NAN, INF = np.nan, np.inf


@dataclass(frozen=True)
class Function:
    name: str
    exact: Callable[[Array], Array]  # in 80-bit arithmetic
    domains: list[tuple[float, float]]  # scaled to float32's range where they exceed it
    ulp: float  # largest error allowed, in either dtype


FUNCTIONS = [
    Function("exp", np.exp, [(-1, 1), (-87, 88), (-745, 709), (-104, -87)], 1.0),
    Function("log", np.log, [(0.5, 2), (0, 1e-37), (1e-45, 1e-38), (1, 1e38), (0.999, 1.001)], 1.0),
    Function("tanh", np.tanh, [(-1e-3, 1e-3), (-0.6, 0.6), (0.5, 1), (-20, 20)], 1.5),
    Function("sigmoid", reference.sigmoid, [(-3, 3), (-88, 40), (-740, -80)], 1.75),
    Function("erf", reference.erf, [(-1e-3, 1e-3), (-1, 1), (0.9, 1.2), (-6, 6)], 1.5),
    Function("softplus", reference.softplus, [(-3, 3), (-88, 88), (-740, 740)], 1.75),
    Function("sqrt", np.sqrt, [(0, 4), (0, 1e38)], 0.5),
    Function("reciprocal", lambda x: 1 / x, [(0.5, 2), (-1e30, -1)], 0.5),
]
DTYPES = [np.float32, np.float64]


def ulps(result: Array, exact: Array) -> Array:
    """Distance in units in the last place of the exact value; 0 where both overflow."""
    info = np.finfo(result.dtype)
    size = np.minimum(np.abs(exact), np.longdouble(info.max))
    exponent = np.maximum(np.frexp(size)[1] - 1, info.minexp)
    unit = np.ldexp(np.longdouble(1), exponent - info.nmant)
    overflow = np.isinf(result) & (np.abs(exact) >= np.longdouble(info.max))
    with np.errstate(invalid="ignore"):
        distance = np.abs(result.astype(np.longdouble) - exact) / unit
    return np.where(overflow & (np.sign(result) == np.sign(exact)), 0, distance)


def draw(dtype: npt.DTypeLike, low: float, high: float, n: int = 20_000) -> Array:
    limit = float(np.finfo(dtype).max) / 2
    return np.random.default_rng(0).uniform(max(low, -limit), min(high, limit), n).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.name)
def test_errors_stay_below_the_stated_bound(function: Function, dtype: type) -> None:
    for low, high in function.domains:
        x = draw(dtype, low, high)
        with np.errstate(all="ignore"):
            error = ulps(getattr(_core, function.name)(x), function.exact(x.astype(np.longdouble)))
        worst = int(np.argmax(error))
        assert error[worst] <= function.ulp, (function.name, float(x[worst]), float(error[worst]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_gelu_and_its_derivative_are_accurate_absolutely(dtype: type) -> None:
    """Φ is (1 + erf) / 2, whose error is one of 1 + erf: relative to 1, not to Φ(-5) = 3e-7."""
    x = draw(dtype, -12, 12)
    eps = float(np.finfo(dtype).eps)
    wide = x.astype(np.longdouble)
    error = np.abs(_core.gelu(x) - reference.gelu(wide))
    assert np.all(error <= 2 * eps * np.maximum(1, np.abs(wide)))
    derivative = _core.gelu_backward(np.ones_like(x), x)
    assert np.all(np.abs(derivative - reference.gelu_derivative(wide)) <= 4 * eps)


@pytest.mark.parametrize("dtype", DTYPES)
def test_softplus_backward_is_the_sigmoid(dtype: type) -> None:
    x = draw(dtype, -80, 30)
    y = reference.softplus(x).astype(dtype)
    exact = -np.expm1(-y.astype(np.longdouble))
    assert np.max(ulps(_core.softplus_backward(np.ones_like(x), y), exact)) <= 1.6


POWERS = [
    ((0, 10), (-10, 10)),
    ((0.9, 1.1), (-800, 800)),
    ((1e-30, 1e30), (-1, 1)),
    ((0, 1), (0, 9)),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("bases", "exponents"), POWERS)
def test_pow_errors_stay_below_the_stated_bound(
    bases: tuple[float, float], exponents: tuple[float, float], dtype: type
) -> None:
    a, b = draw(dtype, *bases), draw(dtype, *exponents)[::-1].copy()
    with np.errstate(all="ignore"):
        exact = np.power(a.astype(np.longdouble), b.astype(np.longdouble))
    assert np.max(ulps(_core.pow(a, b), exact)) <= 1.5


def assert_same_value(result: Array, expected: Array) -> None:
    """Equal, NaN where NaN, and zeros of the same sign."""
    np.testing.assert_array_equal(result, expected)
    number = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(result)[number], np.signbit(expected)[number])


TINY = {np.float32: 1e-45, np.float64: 5e-324}

# Arguments and exact results; None in a result stands for the argument.
SPECIAL: dict[str, list[tuple[float, float | None]]] = {
    "abs": [(-0.0, 0.0), (-INF, INF), (NAN, NAN), (-2, 2)],
    "neg": [(0.0, -0.0), (INF, -INF), (NAN, NAN)],
    "sign": [(-0.0, 0.0), (0.0, 0.0), (-INF, -1), (INF, 1), (NAN, NAN), (1e-40, 1)],
    "square": [(-0.0, 0.0), (-INF, INF), (NAN, NAN)],
    "sqrt": [(-0.0, -0.0), (INF, INF), (-1, NAN), (NAN, NAN)],
    "reciprocal": [(0.0, INF), (-0.0, -INF), (-INF, -0.0), (NAN, NAN)],
    "exp": [(0.0, 1), (-0.0, 1), (INF, INF), (-INF, 0), (NAN, NAN), (1e30, INF), (-1e30, 0)],
    "log": [(1, 0.0), (0.0, -INF), (-0.0, -INF), (INF, INF), (-1, NAN), (-INF, NAN), (NAN, NAN)],
    "tanh": [(0.0, None), (-0.0, None), (INF, 1), (-INF, -1), (NAN, NAN), (1e-40, None), (30, 1)],
    "sigmoid": [(0.0, 0.5), (-0.0, 0.5), (INF, 1), (-INF, 0), (NAN, NAN), (-1e30, 0)],
    "erf": [(0.0, None), (-0.0, None), (INF, 1), (-INF, -1), (NAN, NAN), (7, 1)],
    "relu": [(0.0, 0.0), (-0.0, 0.0), (INF, INF), (-INF, 0), (NAN, NAN), (1e-40, None), (-3, 0)],
    "leaky_relu": [(INF, INF), (-INF, -INF), (NAN, NAN), (-0.0, -0.0)],
    "gelu": [(0.0, None), (-0.0, None), (INF, INF), (-INF, -0.0), (NAN, NAN), (30, None)],
    "softplus": [(INF, INF), (-INF, 0), (NAN, NAN), (1000, None), (-1e30, 0)],
    "copy": [(-0.0, None), (NAN, None), (-INF, None)],
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SPECIAL)
def test_special_values(isa: str, name: str, dtype: type) -> None:
    """Repeated 37 times: vectors and their tails answer alike."""
    x = np.array([[argument] * 37 for argument, _ in SPECIAL[name]], dtype)
    wanted = [[a if result is None else result] * 37 for a, result in SPECIAL[name]]
    assert_same_value(getattr(_core, name)(x), np.array(wanted, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_thresholds_of_overflow_and_underflow(dtype: type) -> None:
    info = np.finfo(dtype)
    top, bottom = np.log(np.longdouble(info.max)), np.log(np.longdouble(TINY[dtype]) / 2)
    x = np.array([top, bottom], dtype)
    below, above = np.nextafter(x, dtype(0)), np.nextafter(x, x * 2)
    with np.errstate(all="ignore"):
        exact = np.exp(np.stack([below, above]).astype(np.longdouble)).astype(dtype)
    result = _core.exp(np.stack([below, above]))
    assert np.isfinite(result[0]).all() and np.isinf(result[1, 0]) and result[1, 1] == 0
    assert np.all(np.abs(result[0] - exact[0]) <= np.spacing(exact[0]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_pow_has_numpys_special_values(isa: str, dtype: type) -> None:
    odd = 2.0 ** np.finfo(dtype).nmant + 1
    values = [0.0, 1, 2, 0.5, 3, 2.5, INF, 1e30, 1e-30, odd, 2 * odd, float(np.finfo(dtype).tiny)]
    x = np.array([*values, *(-v for v in values), NAN], dtype)
    a, b = (v.copy() for v in np.meshgrid(x, x))
    with np.errstate(all="ignore"):
        expected, result = np.power(a, b), _core.pow(a, b)
        close = np.abs(result - expected) <= 2 * np.spacing(np.abs(expected))
    assert_same_value(np.where(close, expected, result), expected)


@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_maximum_and_minimum_hand_on_nan(isa: str, name: str) -> None:
    x = np.array([0.0, -0.0, 1, -1, INF, -INF, NAN])
    a, b = (v.copy() for v in np.meshgrid(x, x))
    np.testing.assert_array_equal(getattr(_core, name)(a, b), getattr(np, name)(a, b))


@pytest.mark.parametrize(
    ("name", "parameter"), [("relu_backward", ()), ("leaky_relu_backward", (0.25,))]
)
def test_derivatives_at_the_kink_are_those_of_the_left(
    name: str, parameter: tuple[float, ...]
) -> None:
    y = np.array([0.0, -0.0, 1, 1e-300, -1])
    slope = parameter[0] if parameter else 0.0
    np.testing.assert_array_equal(
        getattr(_core, name)(np.full(5, 4.0), y, *parameter),
        [4 * slope, 4 * slope, 4, 4, 4 * slope],
    )
