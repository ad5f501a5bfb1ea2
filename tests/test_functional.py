"""Every operation: its value, its gradient, its second derivative, arrays in and arrays out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference.nn as ref
import thalweg as tw
from functional_table import LABELS, OPS, inputs
from gradcheck import check_gradient, check_second_derivative

F = tw.functional

rows = pytest.mark.parametrize("name", list(OPS))


@rows
def test_value_equals_reference(name: str) -> None:
    arrays = inputs(name)
    with tw.no_grad():
        y = OPS[name].f(*[tw.Tensor(array) for array in arrays])
    np.testing.assert_allclose(y, OPS[name].reference(*arrays), rtol=1e-12, atol=1e-14)


@rows
def test_float32_stays_float32_and_near_reference(name: str) -> None:
    arrays = inputs(name, np.float32)
    y = OPS[name].f(*[tw.Tensor(array, requires_grad=True) for array in arrays])
    assert y.dtype == np.float32
    expected = OPS[name].reference(*[array.astype(np.float64) for array in arrays])
    np.testing.assert_allclose(y, expected, rtol=2e-5, atol=2e-6)
    y.backward(np.ones(y.shape, np.float32))


@rows
def test_gradient_equals_finite_differences(name: str) -> None:
    check_gradient(OPS[name].f, inputs(name))


@rows
def test_second_derivative_equals_finite_differences(name: str) -> None:
    check_second_derivative(OPS[name].f, inputs(name))


@rows
def test_arrays_give_an_array_of_the_same_bits(name: str) -> None:
    arrays = inputs(name)
    y = OPS[name].f(*arrays)
    assert isinstance(y, np.ndarray)
    np.testing.assert_array_equal(y, OPS[name].f(*[tw.Tensor(array) for array in arrays]).data)


@pytest.mark.torch
@pytest.mark.parametrize("name", [name for name, op in OPS.items() if op.peer])
def test_value_and_gradient_equal_torch(name: str) -> None:
    torch = pytest.importorskip("torch")
    peer, *arguments = str(OPS[name].peer).split(":")
    home = torch if hasattr(torch, peer) else torch.nn.functional
    arrays = inputs(name)
    theirs = [torch.tensor(array, requires_grad=True) for array in arrays]
    ours = [tw.tensor(array, requires_grad=True) for array in arrays]
    expected = getattr(home, peer)(
        *theirs, *map(float if "." in "".join(arguments) else int, arguments)
    )
    y = OPS[name].f(*ours)
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-12, atol=1e-14)
    seed = np.cos(np.arange(y.numel())).reshape(y.shape)
    y.backward(seed)
    expected.backward(torch.tensor(seed))
    for mine, their in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine.grad, their.grad.numpy(), rtol=1e-11, atol=1e-13)


def test_batch_norm_backward_equals_the_papers_chain_rule() -> None:
    draw = np.random.default_rng(0)
    x, dy = draw.standard_normal((2, 7, 3))
    gamma = draw.uniform(0.5, 2, 3)
    _, saved = tw.batch_norm(x, gamma, np.zeros(3), None, None, training=True)
    gradients = tw.batch_norm_backward(dy, x, gamma, saved)
    expected = ref.batch_norm_gradients(dy, x, gamma, 1e-5)
    for ours, theirs in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-13)


def test_batch_norm_in_evaluation_has_its_own_gradient() -> None:
    draw = np.random.default_rng(1)
    mean, var = draw.standard_normal(3), draw.uniform(0.5, 2, 3)

    def f(x: Any, gamma: Any, beta: Any) -> Any:
        return F.batch_norm(x, gamma, beta, mean, var, training=False)[0]

    arrays = [draw.standard_normal(shape) for shape in ((4, 3), (3,), (3,))]
    check_gradient(f, arrays)
    check_second_derivative(f, arrays)
    np.testing.assert_allclose(
        f(*arrays), arrays[1] * (arrays[0] - mean) / np.sqrt(var + 1e-5) + arrays[2], rtol=1e-12
    )


def test_batch_norm_with_residual_and_activation_has_gradients_for_all() -> None:
    draw = np.random.default_rng(2)
    arrays = [draw.standard_normal(shape) for shape in ((5, 2), (2,), (2,), (5, 2))]

    def f(x: Any, gamma: Any, beta: Any, residual: Any) -> Any:
        options: dict[str, Any] = {"residual": residual, "activation": "relu"}
        return F.batch_norm(x, gamma, beta, training=True, **options)[0]

    check_gradient(f, arrays)
    check_second_derivative(f, arrays)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_softmax_cross_entropy_returns_the_gradient_that_cross_entropy_records(
    reduction: str,
) -> None:
    logits = np.random.default_rng(3).standard_normal((4, 5))
    loss, dlogits = tw.softmax_cross_entropy(logits, LABELS, reduction=reduction)
    x = tw.Tensor(logits, requires_grad=True)
    recorded = F.cross_entropy(x, LABELS, reduction=reduction)
    recorded.backward(np.ones(recorded.shape))
    np.testing.assert_array_equal(loss, recorded.data)
    assert x.grad is not None
    np.testing.assert_array_equal(dlogits, x.grad.data)


@given(st.integers(0, 4), st.integers(0, 3), st.integers(0, 2), st.data())
def test_gradient_has_the_shape_of_what_was_broadcast(
    rows: int, columns: int, extra: int, data: st.DataObject
) -> None:
    shape = (*[2] * extra, rows, columns)
    ones = [data.draw(st.booleans()) for _ in shape]
    start = data.draw(st.integers(0, len(shape)))
    small = tuple(1 if one else n for one, n in zip(ones, shape, strict=True))[start:]
    a = tw.ones(shape, requires_grad=True)
    b = tw.ones(small, requires_grad=True)
    (a * b).sum().backward()
    assert a.grad is not None and b.grad is not None
    assert (a.grad.shape, b.grad.shape) == (shape, small)
    repeats = a.numel() // b.numel() if b.numel() else 0
    np.testing.assert_array_equal(b.grad.data, np.full(small, repeats, np.float32))


def test_equal_elements_share_the_gradient_of_an_extreme() -> None:
    x = tw.tensor([[1.0, 3.0], [3.0, 2.0]], requires_grad=True)
    x.max().backward()
    np.testing.assert_array_equal(x.grad, [[0, 0.5], [0.5, 0]])
    a, b = tw.ones(2, requires_grad=True), tw.ones(2, requires_grad=True)
    F.maximum(a, b).sum().backward()
    np.testing.assert_array_equal(a.grad, [0.5, 0.5])


def test_nan_reaches_results_and_gradients_without_a_warning() -> None:
    x = tw.tensor([1.0, np.nan], requires_grad=True)
    for f in (F.max, F.norm, F.sum, F.softmax, F.relu, F.abs, F.mean, F.std, F.logsumexp):
        x.grad = None
        y = f(x)
        assert np.isnan(y.data).any(), f.__name__
        y.sum().backward()


def test_gradients_at_kinks_are_finite() -> None:
    x = tw.zeros(3, requires_grad=True)
    (x.norm() + x.abs().sum() + x.relu().sum() + (x**2).sum() + (x**0).sum()).backward()
    np.testing.assert_array_equal(x.grad, np.zeros(3))


def test_losses_stay_exact_in_the_tails() -> None:
    x = np.array([-800.0, -50.0, 50.0, 800.0])
    right = F.binary_cross_entropy_with_logits(x, np.array([0.0, 0, 1, 1]), reduction="none")
    np.testing.assert_allclose(right[1:3], np.exp(-50.0), rtol=1e-12)
    wrong = F.binary_cross_entropy_with_logits(x, np.array([1.0, 1, 0, 0]), reduction="none")
    np.testing.assert_allclose(wrong, np.abs(x), rtol=1e-15)
    assert np.isfinite(F.cross_entropy(np.array([[1e4, -1e4]]), np.array([1])))


def test_arrays_of_other_libraries_are_inputs() -> None:
    torch = pytest.importorskip("torch")
    x = torch.tensor([[1.0, -2.0], [3.0, 4.0]])
    for y in (tw.relu(x), tw.matmul(x, x), tw.sum(x), tw.softmax(x), F.reshape(x, (4,))):
        assert isinstance(y, np.ndarray)
    weight = tw.ones(2, requires_grad=True)
    (weight * x).sum().backward()
    np.testing.assert_array_equal(weight.grad, [4, 2])


@pytest.mark.parametrize("last", [False, True])
def test_gradients_of_joined_arrays_are_views_of_the_whole_one(last: bool) -> None:
    def images(channels: int) -> Any:
        x = np.ones((2, 4, 5, channels), np.float32).transpose(0, 3, 1, 2)
        return tw.Tensor(x if last else x.copy(order="C"), requires_grad=True)

    joined, dy = F.concatenate([images(3), images(2)], 1), images(5).detach()
    node, gradients = joined._node, (dy,)
    if last:  # channels-last images are joined behind a transposition
        (node,), gradients = node.edges, node.backward(dy)
    gradients = node.backward(*gradients)
    assert [g.data.size for g in gradients] == [3 * 40, 2 * 40]
    assert all(np.shares_memory(g.data, dy.data) for g in gradients)
