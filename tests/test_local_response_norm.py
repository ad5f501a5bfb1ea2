"""Local response normalisation: the paper's formula, exact identities, gradients, PyTorch."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference.pool as ref
import thalweg as tw
from gradcheck import check_gradient, check_second_derivative
from thalweg import _core

Array = np.ndarray
F = tw.functional

ALEXNET = (5, 5e-4, 0.75, 2.0)
OPTIONS = [
    ALEXNET,
    (1, 0.5, 0.75, 1.0),
    (4, 1.0, 0.5, 1.5),
    (2, 0.3, 1.3, 0.7),
    (9, 0.1, 0.75, 1.0),
]
SHAPES = [(2, 96, 5, 7), (1, 3, 40, 33), (2, 17, 1, 1), (1, 1, 3, 3), (1, 300, 8, 9)]


def drawn(shape: tuple[int, ...], dtype: Any = np.float32, seed: int = 0) -> Array:
    return (3 * np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


def channels_last(x: Array) -> Array:
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_reference(isa: str, shape: tuple[int, ...], options: Any) -> None:
    for dtype in (np.float32, np.float64):
        x = drawn(shape, dtype)
        rtol = 8 * (options[0] + 4) * float(np.finfo(dtype).eps)
        expected = ref.local_response_norm(x, *options)
        np.testing.assert_allclose(_core.local_response_norm(x, *options), expected, rtol=rtol)


@given(
    shape=st.tuples(*[st.integers(1, n) for n in (2, 9, 4, 20)]),
    size=st.integers(1, 12),
    beta=st.sampled_from([0.75, 0.5, 2.0]),
)
def test_any_shape_equals_reference(shape: tuple[int, ...], size: int, beta: float) -> None:
    x = drawn(shape, np.float64)
    y = _core.local_response_norm(channels_last(x), size, 0.7, beta, 1.1)
    np.testing.assert_allclose(y, ref.local_response_norm(x, size, 0.7, beta, 1.1), rtol=1e-12)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bits_do_not_depend_on_isa_threads_or_layout(shape: tuple[int, ...], options: Any) -> None:
    x, dy = drawn(shape), drawn(shape, seed=1)

    def run(x: Array, dy: Array) -> list[bytes]:
        y = _core.local_response_norm(x, *options)
        return [y.tobytes(), _core.local_response_norm_backward(dy, x, *options).tobytes()]

    expected = run(x, dy)
    for isa, threads in itertools.product(_core.available_isas(), (1, 2, 3)):
        _core.use_isa(isa)
        _core.set_num_threads(threads)
        assert run(x, dy) == expected, (isa, threads)
        assert run(channels_last(x), dy) == expected, (isa, threads)
        assert run(np.flip(np.flip(x).copy()), channels_last(dy)) == expected


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_gradients_equal_finite_differences(options: Any) -> None:
    x = drawn((2, 6, 2, 3), np.float64)
    check_gradient(lambda x: F.local_response_norm(x, *options), [x])
    check_second_derivative(lambda x: F.local_response_norm(x, *options), [x])


def test_bad_arguments_are_named() -> None:
    x = drawn((1, 2, 3, 3))
    with pytest.raises(ValueError, match="local_response_norm: size must be between 1 and"):
        _core.local_response_norm(x, 0)
    with pytest.raises(ValueError, match="local_response_norm: x must have 4 dimensions"):
        _core.local_response_norm(x[0], 5)
    with pytest.raises(ValueError, match="local_response_norm: beta must be finite, got nan"):
        _core.local_response_norm(x, 5, beta=np.nan)
    with pytest.raises(ValueError, match="local_response_norm_backward: dy has shape"):
        _core.local_response_norm_backward(x[:, :1], x, 5)
    assert _core.local_response_norm(x[:0], 5).shape == (0, 2, 3, 3)


@pytest.mark.torch
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_equals_torch(options: Any) -> None:
    torch = pytest.importorskip("torch")
    x, dy = drawn((2, 20, 4, 5), np.float64), drawn((2, 20, 4, 5), np.float64, 1)
    theirs = torch.tensor(x, requires_grad=True)
    expected = torch.nn.functional.local_response_norm(theirs, *options)
    expected.backward(torch.tensor(dy))
    y = _core.local_response_norm(x, *options)
    dx = _core.local_response_norm_backward(dy, x, *options)
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(dx, theirs.grad.numpy(), rtol=1e-10, atol=1e-12)
