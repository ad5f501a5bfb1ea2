"""Softmax and its fusion with cross-entropy: values, gradients, extremes, bad labels."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference import norm as reference
from thalweg import _core

Array = np.ndarray

FORMS = ["softmax", "log_softmax"]
DTYPES = ["float32", "float64"]


def tolerance(dtype: str) -> float:
    """Absolute, for probabilities and for logarithms of order 10: a few roundings of the shifted
    logit, the exponential (1 ulp), the factor and the product."""
    return 40 * float(np.finfo(dtype).eps)


def normal(*shape: int, seed: int = 0, dtype: str = "float64", scale: float = 3.0) -> Array:
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype(dtype)


def numerical_gradient(f: Callable[[Array], float], x: Array, h: float = 1e-3) -> Array:
    """Five-point stencil: error h^4/30 times the fifth derivative."""
    gradient = np.empty_like(x)
    for at in np.ndindex(x.shape):
        values = []
        for step in (-2, -1, 1, 2):
            moved = x.copy()
            moved[at] += step * h
            values.append(f(moved))
        gradient[at] = (8 * (values[2] - values[1]) - (values[3] - values[0])) / (12 * h)
    return gradient


@pytest.mark.parametrize("form", FORMS)
@given(
    shape=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    dtype=st.sampled_from(DTYPES),
    data=st.data(),
)
def test_matches_its_definition_on_any_axis_and_layout(
    form: str, shape: list[int], dtype: str, data: st.DataObject
) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1), label="axis")
    x = normal(*shape, dtype=dtype)
    y = getattr(_core, form)(x, axis)
    expected = getattr(reference, form)(x, axis)
    np.testing.assert_allclose(y, expected, rtol=0, atol=tolerance(dtype))
    for same in (np.asfortranarray(x), np.flip(np.flip(x).copy())):
        assert getattr(_core, form)(same, axis).tobytes() == y.tobytes()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_gradient_matches_finite_differences(form: str, axis: int) -> None:
    x, dy = normal(3, 4, 5, scale=1), normal(3, 4, 5, seed=1)
    y = getattr(_core, form)(x, axis)
    dx = getattr(_core, form + "_backward")(dy, y, axis)
    expected = numerical_gradient(lambda v: float((getattr(_core, form)(v, axis) * dy).sum()), x)
    np.testing.assert_allclose(dx, expected, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(dx.sum(axis), 0, atol=1e-13)  # a shift of the row changes nothing


@pytest.mark.parametrize("shape", [(7, 10), (3, 5000), (600, 33), (2, 1)])
def test_bits_do_not_depend_on_isa_or_threads(shape: tuple[int, int]) -> None:
    x, dy, target = normal(*shape, dtype="float32"), normal(*shape, seed=1, dtype="float32"), None
    target = np.arange(shape[0]) % shape[1]

    def results() -> list[bytes]:
        arrays = [*_core.softmax_cross_entropy(x, target, label_smoothing=0.1)]
        for form, axis in itertools.product(FORMS, (0, 1)):
            y = getattr(_core, form)(x, axis)
            arrays += [y, getattr(_core, form + "_backward")(dy, y, axis)]
        return [array.tobytes() for array in arrays]

    expected = results()
    for isa, threads in itertools.product(_core.available_isas(), (1, 2, 3)):
        _core.use_isa(isa)
        _core.set_num_threads(threads)
        assert results() == expected, (isa, threads)


@pytest.mark.parametrize("dtype", DTYPES)
def test_huge_logits_neither_overflow_nor_lose_the_row(isa: str, dtype: str) -> None:
    x = np.array([[1e30, 1e30, -1e30], [-3e38, -3e38, -3e38], [700, 710, 720]], dtype)
    y = _core.softmax(x)
    np.testing.assert_allclose(y.sum(1), 1, atol=tolerance(dtype))
    np.testing.assert_allclose(y[:2], [[0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3]], atol=tolerance(dtype))
    loss, dlogits = _core.softmax_cross_entropy(x, np.array([0, 1, 2]), reduction="none")
    assert np.isfinite(loss).all()
    assert np.isfinite(dlogits).all()


def test_infinite_and_nan_logits_stay_in_their_row(isa: str) -> None:
    x = np.array([[-np.inf, 0, 0], [np.nan, 0, 0], [np.inf, 0, 0], [-np.inf] * 3, [1, 2, 3]])
    y = _core.softmax(x)
    np.testing.assert_array_equal(y[0], [0, 0.5, 0.5])
    assert np.isnan(y[1:4]).all()
    np.testing.assert_allclose(y[4], reference.softmax(x[4]), rtol=1e-14)
    loss, dlogits = _core.softmax_cross_entropy(x[:1], np.array([0]))
    assert loss == np.inf
    np.testing.assert_array_equal(dlogits, [[-1, 0.5, 0.5]])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("label_dtype", ["int32", "int64"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.9])
def test_cross_entropy_matches_its_definition(
    dtype: str, label_dtype: str, label_smoothing: float
) -> None:
    x = normal(30, 11, dtype=dtype)
    target = (np.arange(60) % 11).astype(label_dtype)[::2]
    losses, gradients = reference.cross_entropy(x, target, label_smoothing)
    expected = {"none": (losses, gradients), "sum": (losses.sum(), gradients)}
    expected["mean"] = (losses.mean(), gradients / 30)
    for reduction, (loss, gradient) in expected.items():
        got = _core.softmax_cross_entropy(
            x, target, label_smoothing=label_smoothing, reduction=reduction
        )
        assert got[0].shape == np.shape(loss)
        assert got[0].dtype == got[1].dtype == x.dtype
        np.testing.assert_allclose(got[0], loss, rtol=tolerance(dtype))
        np.testing.assert_allclose(got[1], gradient, rtol=0, atol=tolerance(dtype))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy_gradient_matches_finite_differences(reduction: str) -> None:
    x, target = normal(4, 6, scale=1), np.array([0, 5, 3, 3])

    def loss(v: Array) -> float:
        return float(
            _core.softmax_cross_entropy(v, target, label_smoothing=0.2, reduction=reduction)[
                0
            ].sum()
        )

    _, dlogits = _core.softmax_cross_entropy(x, target, label_smoothing=0.2, reduction=reduction)
    np.testing.assert_allclose(dlogits, numerical_gradient(loss, x), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dtype", DTYPES)
def test_fused_loss_is_the_negative_log_softmax(dtype: str) -> None:
    x, target = normal(50, 20, dtype=dtype), np.arange(50) % 20
    loss, _ = _core.softmax_cross_entropy(x, target, reduction="none")
    picked = -_core.log_softmax(x)[np.arange(50), target]
    np.testing.assert_allclose(loss, picked, rtol=tolerance(dtype), atol=tolerance(dtype))


@pytest.mark.parametrize("layout", [np.asfortranarray, lambda x: x[::-1].copy()[::-1]])
def test_strided_logits_give_the_same_bits(layout: Callable[[Array], Array]) -> None:
    x, target = normal(9, 13, dtype="float32"), np.arange(9)
    expected = _core.softmax_cross_entropy(x, target)
    got = _core.softmax_cross_entropy(layout(x), target)
    assert [a.tobytes() for a in got] == [a.tobytes() for a in expected]


def test_an_empty_batch_has_an_empty_gradient() -> None:
    x, target = np.zeros((0, 4)), np.zeros(0, "i8")
    loss, dlogits = _core.softmax_cross_entropy(x, target)
    assert np.isnan(loss)
    assert dlogits.shape == (0, 4)
    assert _core.softmax_cross_entropy(x, target, reduction="sum")[0] == 0
    assert _core.softmax_cross_entropy(x, target, reduction="none")[0].shape == (0,)
    for form, axis in itertools.product(FORMS, (0, 1)):
        assert getattr(_core, form)(x, axis).shape == (0, 4)


@pytest.mark.torch
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_cross_entropy_agrees_with_torch(
    dtype: str, reduction: str, label_smoothing: float
) -> None:
    torch = pytest.importorskip("torch")
    x, target = normal(64, 100, dtype=dtype), np.arange(64) % 100
    t = torch.tensor(x, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(
        t, torch.from_numpy(target), reduction=reduction, label_smoothing=label_smoothing
    )
    expected.sum().backward()
    loss, dlogits = _core.softmax_cross_entropy(
        x, target, reduction=reduction, label_smoothing=label_smoothing
    )
    np.testing.assert_allclose(loss, expected.detach().numpy(), rtol=tolerance(dtype))
    np.testing.assert_allclose(dlogits, t.grad.numpy(), rtol=0, atol=tolerance(dtype))


X = np.zeros((2, 3), "f4")
LABELS = np.array([0, 2])


def cross_entropy(logits: Any = X, target: Any = LABELS, **options: Any) -> Callable[[], Any]:
    return lambda: _core.softmax_cross_entropy(logits, target, **options)


BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (
        cross_entropy(target=np.array([0, 3])),
        ValueError,
        r"target\[1\] is 3, expected a class in \[0, 3\)",
    ),
    (
        cross_entropy(target=np.array([-1, 0])),
        ValueError,
        r"target\[0\] is -1, expected a class in \[0, 3\)",
    ),
    (
        cross_entropy(np.zeros((2, 0), "f4")),
        ValueError,
        r"target\[0\] is 0, expected a class in \[0, 0\)",
    ),
    (cross_entropy(target=np.array([0])), ValueError, r"target must have shape \(2,\), got \(1,\)"),
    (
        cross_entropy(target=np.zeros((2, 1), "i8")),
        ValueError,
        r"target must have shape \(2,\), got \(2, 1\)",
    ),
    (
        cross_entropy(target=np.zeros(2)),
        TypeError,
        "target must be int32 or int64 class indices, got float64",
    ),
    (cross_entropy(np.zeros(3)), ValueError, r"logits must have 2 dimensions, got shape \(3,\)"),
    (
        cross_entropy(np.zeros((2, 3), "i4")),
        TypeError,
        "logits must be float32 or float64, got int32",
    ),
    (cross_entropy(label_smoothing=1.0), ValueError, r"label_smoothing must be in \[0, 1\), got 1"),
    (
        cross_entropy(label_smoothing=float("nan")),
        ValueError,
        r"label_smoothing must be in \[0, 1\), got nan",
    ),
    (
        cross_entropy(reduction="avg"),
        ValueError,
        "reduction must be 'mean', 'sum' or 'none', got 'avg'",
    ),
    (lambda: _core.softmax(X, 2), ValueError, "softmax: axis is 2, expected between -2 and 1"),
    (lambda: _core.softmax(np.zeros((), "f4")), ValueError, "softmax: axis is -1"),
    (
        lambda: _core.log_softmax(np.zeros(3, "i4")),
        TypeError,
        "log_softmax: x must be float32 or float64",
    ),
    (
        lambda: _core.softmax_backward(X, X.astype("f8")),
        TypeError,
        "softmax_backward: dy is float32 but y is float64",
    ),
    (
        lambda: _core.softmax_backward(X[:1], X),
        ValueError,
        r"softmax_backward: dy has shape \(1, 3\), expected \(2, 3\) like y",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_arguments_are_named(
    call: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()
