"""Layer normalisation over the last axis: the paper's formulas, identities, bad arguments."""

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

DTYPES = ["float32", "float64"]
SHAPES = [(7,), (3, 5), (256, 100), (4, 3, 33), (2, 5000), (3000, 17), (6, 2)]


def tolerance(dtype: str) -> float:
    """Relative to results of order 1: float64 statistics, at most 8 roundings on the way."""
    return 16 * float(np.finfo(dtype).eps) + 300 * 2.0**-53


def normal(*shape: int, seed: int = 0, dtype: str = "float64", offset: float = 0.0) -> Array:
    return (np.random.default_rng(seed).normal(size=shape) + offset).astype(dtype)


def arguments(shape: tuple[int, ...], dtype: str = "float64") -> tuple[Array, Array, Array, Array]:
    """dy, x, gamma, beta."""
    return (
        normal(*shape, seed=1, dtype=dtype),
        normal(*shape, dtype=dtype, offset=3),
        normal(shape[-1], seed=2, dtype=dtype, offset=1),
        normal(shape[-1], seed=3, dtype=dtype),
    )


def everything(dy: Array, x: Array, gamma: Array | None, beta: Array | None) -> tuple[Array, ...]:
    y, saved = _core.layer_norm(x, gamma, beta)
    return (y, *saved, *_core.layer_norm_backward(dy, x, gamma, saved))


def bits(arrays: tuple[Array, ...]) -> list[bytes]:
    return [array.tobytes() for array in arrays]


def check(dy: Array, x: Array, gamma: Array, beta: Array) -> None:
    y, _, _, dx, dgamma, dbeta = everything(dy, x, gamma, beta)
    atol = tolerance(str(x.dtype)) * 8
    np.testing.assert_allclose(y, reference.layer_norm(x, gamma, beta), rtol=0, atol=atol)
    expected = reference.layer_norm_backward(dy, x, gamma)
    for got, wanted in zip((dx, dgamma, dbeta), expected, strict=True):
        scale = 1 + np.abs(wanted).max()
        np.testing.assert_allclose(got, wanted, rtol=0, atol=atol * scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_matches_the_paper(isa: str, shape: tuple[int, ...], dtype: str) -> None:
    check(*arguments(shape, dtype))


@given(shape=st.lists(st.integers(1, 20), min_size=1, max_size=3), dtype=st.sampled_from(DTYPES))
def test_any_shape_matches_the_paper(shape: list[int], dtype: str) -> None:
    check(*arguments(tuple(shape), dtype))


@pytest.mark.parametrize("shape", SHAPES)
def test_bits_do_not_depend_on_isa_threads_or_layout(shape: tuple[int, ...]) -> None:
    dy, x, gamma, beta = arguments(shape, "float32")
    expected = bits(everything(dy, x, gamma, beta))
    for isa, threads in itertools.product(_core.available_isas(), (1, 2, 3)):
        _core.use_isa(isa)
        _core.set_num_threads(threads)
        assert bits(everything(dy, x, gamma, beta)) == expected, (isa, threads)
    strided = np.asfortranarray(dy), np.flip(np.flip(x).copy()), gamma.repeat(2)[::2], beta
    assert bits(everything(*strided)) == expected


def test_small_deviations_around_a_large_mean(isa: str) -> None:
    x = (1e4 + 1e-2 * np.random.default_rng(0).normal(size=(3, 100_000))).astype("f4")
    y, _ = _core.layer_norm(x, None, None, eps=0)
    expected = reference.layer_norm(x - 1e4, np.ones(1), np.zeros(1), eps=0)
    assert np.abs(y - expected).max() < 4e-6


def test_gradients_match_finite_differences() -> None:
    dy, x, gamma, beta = arguments((3, 4))
    _, saved = _core.layer_norm(x, gamma, beta)
    h = 1e-3
    gradients = _core.layer_norm_backward(dy, x, gamma, saved)
    for array, got in zip((x, gamma, beta), gradients, strict=True):
        for at in np.ndindex(array.shape):
            kept, values = array[at], {}
            for step in (-2, -1, 1, 2):
                array[at] = kept + step * h
                values[step] = float((_core.layer_norm(x, gamma, beta)[0] * dy).sum())
            array[at] = kept
            expected = (8 * (values[1] - values[-1]) - (values[2] - values[-2])) / (12 * h)
            assert got[at] == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_the_gradient_is_orthogonal_to_shift_and_scale_of_a_row() -> None:
    dy, x, gamma, beta = arguments((5, 40))
    _, saved = _core.layer_norm(x, gamma, beta, eps=0)
    dx, *_ = _core.layer_norm_backward(dy, x, gamma, saved)
    np.testing.assert_allclose(dx.sum(1), 0, atol=1e-12)
    np.testing.assert_allclose((dx * x).sum(1), 0, atol=1e-12)


def test_absent_gamma_and_beta_are_one_and_zero() -> None:
    dy, x, _, _ = arguments((5, 12), "float32")
    ones, zeros = np.ones(12, "f4"), np.zeros(12, "f4")
    assert bits(everything(dy, x, None, None)) == bits(everything(dy, x, ones, zeros))


def test_nan_stays_in_its_row(isa: str) -> None:
    dy, x, gamma, beta = arguments((4, 20))
    x[2, 7] = np.nan
    y, _, _, dx, _, dbeta = everything(dy, x, gamma, beta)
    np.testing.assert_array_equal(np.isnan(y).all(1), [False, False, True, False])
    np.testing.assert_array_equal(np.isnan(dx).any(1), [False, False, True, False])
    assert np.isfinite(dbeta).all()


@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (2, 0, 5)])
def test_empty_arrays_give_empty_results(shape: tuple[int, ...]) -> None:
    y, _, _, dx, dgamma, dbeta = everything(*arguments(shape))
    assert y.shape == dx.shape == shape
    np.testing.assert_array_equal([dgamma, dbeta], np.zeros((2, shape[-1])))


@pytest.mark.torch
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES[:-1])
def test_agrees_with_torch(shape: tuple[int, ...], dtype: str) -> None:
    torch = pytest.importorskip("torch")
    dy, x, gamma, beta = arguments(shape, dtype)
    tensors = [torch.tensor(a, requires_grad=True) for a in (x, gamma, beta)]
    expected = torch.nn.functional.layer_norm(tensors[0], shape[-1:], *tensors[1:])
    expected.backward(torch.tensor(dy))
    y, saved = _core.layer_norm(x, gamma, beta)
    atol = tolerance(dtype) * 40
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=0, atol=atol)
    gradients = _core.layer_norm_backward(dy, x, gamma, saved)
    for got, tensor in zip(gradients, tensors, strict=True):
        wanted = tensor.grad.numpy()
        np.testing.assert_allclose(got, wanted, rtol=0, atol=atol * (1 + np.abs(wanted).max()))


X = normal(4, 3, dtype="float32")
SAVED = _core.layer_norm(X, None, None)[1]

BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: _core.layer_norm(np.ones((2, 3), "i4"), None, None), TypeError,
     "layer_norm: x must be float32 or float64, got int32"),
    (lambda: _core.layer_norm(np.ones((), "f4"), None, None), ValueError,
     r"layer_norm: x must have at least 1 dimension, got shape \(\)"),
    (lambda: _core.layer_norm(X, np.ones(4, "f4"), None), ValueError,
     r"layer_norm: gamma must have shape \(3,\), got \(4,\)"),
    (lambda: _core.layer_norm(X, None, np.ones(3)), TypeError,
     "layer_norm: beta is float64 but x is float32"),
    (lambda: _core.layer_norm(X, None, None, eps=-1.0), ValueError,
     "layer_norm: eps must be at least 0 and finite, got -1"),
    (lambda: _core.layer_norm_backward(X[:2], X, None, SAVED), ValueError,
     r"layer_norm_backward: dy has shape \(2, 3\), expected \(4, 3\) like x"),
    (lambda: _core.layer_norm_backward(X, X, np.ones(2, "f4"), SAVED), ValueError,
     r"layer_norm_backward: gamma must have shape \(3,\), got \(2,\)"),
    (lambda: _core.layer_norm_backward(X[:2], X[:2], None, SAVED), ValueError,
     "layer_norm_backward: saved must be what layer_norm returned for x"),
    (lambda: _core.layer_norm_backward(X, X, None, SAVED[:1]), ValueError,
     "layer_norm_backward: saved must be what layer_norm returned, got a tuple of 1"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_arguments_are_named(
    call: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()
