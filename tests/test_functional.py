"""Every operation: its value, its gradient, its second derivative, arrays in and arrays out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference.nn as ref
import thalweg as tw
from gradcheck import check_gradient, check_second_derivative

F = tw.functional

LABELS = np.array([2, 0, 4, 1])
CONDITION = np.array([[True, False, True], [False, True, True]])


class Op(NamedTuple):
    """An operation, its reference, and the shapes and range of inputs that stay off its kinks."""

    f: Callable[..., Any]
    reference: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...] = ((2, 3),)
    low: float = -2.0
    high: float = 2.0
    peer: str | None = None  # the same in torch


def reduce(f: Callable[..., Any], reduction: str) -> Callable[..., Any]:
    return lambda *arrays: ref.REDUCE[reduction](f(*arrays))


PAIR = ((2, 3), (2, 3))
ROW = ((2, 3), (3,))
COLUMN = ((2, 1), (4, 1, 3))

OPS: dict[str, Op] = {
    "add": Op(F.add, np.add, PAIR, peer="add"),
    "add row": Op(F.add, np.add, ROW, peer="add"),
    "add column": Op(F.add, np.add, COLUMN, peer="add"),
    "add 0-d": Op(F.add, np.add, ((), (2, 3)), peer="add"),
    "add scalar": Op(lambda x: 2 + x + 1.5, lambda x: x + 3.5),
    "sub": Op(F.sub, np.subtract, COLUMN, peer="sub"),
    "sub from scalar": Op(lambda x: 1 - x, lambda x: 1 - x),
    "mul": Op(F.mul, np.multiply, PAIR, peer="mul"),
    "mul column": Op(F.mul, np.multiply, COLUMN, peer="mul"),
    "mul by itself": Op(lambda x: x * x, lambda x: x * x),
    "div": Op(F.div, np.divide, PAIR, 0.5, 2, peer="div"),
    "div row": Op(F.div, np.divide, ROW, 0.5, 2, peer="div"),
    "scalar by x": Op(lambda x: 3 / x, lambda x: 3 / x, low=0.5),
    "pow": Op(F.pow, np.power, ROW, 0.5, 2, peer="pow"),
    "pow 0": Op(lambda x: F.pow(x, 0), lambda x: x**0),
    "pow 1": Op(lambda x: F.pow(x, 1), lambda x: x),
    "pow 2": Op(lambda x: F.pow(x, 2), lambda x: x * x),
    "pow 3": Op(lambda x: F.pow(x, 3), lambda x: x * x * x),
    "pow -1.5": Op(lambda x: F.pow(x, -1.5), lambda x: x**-1.5, low=0.5),
    "scalar to x": Op(lambda x: F.pow(2, x), lambda x: 2**x),
    "maximum": Op(F.maximum, np.maximum, PAIR, peer="maximum"),
    "minimum": Op(F.minimum, np.minimum, ROW, peer="minimum"),
    "where": Op(lambda a, b: F.where(CONDITION, a, b), lambda a, b: np.where(CONDITION, a, b), ROW),
    "clip": Op(lambda x: F.clip(x, -1.0, 0.5), lambda x: np.clip(x, -1.0, 0.5)),
    "neg": Op(F.neg, np.negative, peer="neg"),
    "abs": Op(F.abs, np.abs, peer="abs"),
    "sign": Op(F.sign, np.sign, peer="sign"),
    "square": Op(F.square, np.square, peer="square"),
    "sqrt": Op(F.sqrt, np.sqrt, low=0.5, peer="sqrt"),
    "reciprocal": Op(F.reciprocal, lambda x: 1 / x, low=0.5, peer="reciprocal"),
    "exp": Op(F.exp, np.exp, peer="exp"),
    "log": Op(F.log, np.log, low=0.5, peer="log"),
    "erf": Op(F.erf, ref.erf, peer="erf"),
    "sigmoid": Op(F.sigmoid, ref.sigmoid, low=-4, high=4, peer="sigmoid"),
    "tanh": Op(F.tanh, ref.tanh, peer="tanh"),
    "relu": Op(F.relu, ref.relu, peer="relu"),
    "leaky_relu": Op(
        lambda x: F.leaky_relu(x, 0.2), lambda x: ref.leaky_relu(x, 0.2), peer="leaky_relu:0.2"
    ),
    "gelu": Op(F.gelu, ref.gelu, peer="gelu"),
    "softplus": Op(F.softplus, ref.softplus, peer="softplus"),
    "sum": Op(F.sum, np.sum, peer="sum"),
    "sum 0": Op(lambda x: F.sum(x, 0), lambda x: x.sum(0)),
    "sum -1 kept": Op(lambda x: F.sum(x, -1, keepdims=True), lambda x: x.sum(-1, keepdims=True)),
    "sum (0, 2)": Op(lambda x: F.sum(x, (0, 2)), lambda x: x.sum((0, 2)), ((2, 3, 2),)),
    "mean": Op(F.mean, np.mean, peer="mean"),
    "mean 1": Op(lambda x: F.mean(x, 1), lambda x: x.mean(1)),
    "mean (0, 2)": Op(lambda x: F.mean(x, (0, 2)), lambda x: x.mean((0, 2)), ((2, 3, 2),)),
    "var": Op(lambda x: F.var(x, 1), lambda x: x.var(1, ddof=1)),
    "std": Op(lambda x: F.std(x, correction=0), lambda x: x.std()),
    "max": Op(F.max, np.max, peer="amax"),
    "max 0": Op(lambda x: F.max(x, 0), lambda x: x.max(0)),
    "min 1": Op(lambda x: F.min(x, 1, keepdims=True), lambda x: x.min(1, keepdims=True)),
    "norm": Op(F.norm, ref.norm, peer="norm"),
    "norm 1": Op(lambda x: F.norm(x, 1), lambda x: np.sqrt((x * x).sum(1))),
    "sum_squares 0": Op(lambda x: F.sum_squares(x, 0), lambda x: (x * x).sum(0)),
    "logsumexp": Op(F.logsumexp, lambda x: np.log(np.exp(x).sum(-1))),
    "logsumexp 0": Op(lambda x: F.logsumexp(x, 0), lambda x: np.log(np.exp(x).sum(0))),
    "softmax": Op(F.softmax, ref.softmax, peer="softmax:-1"),
    "softmax 0": Op(lambda x: F.softmax(x, 0), lambda x: ref.softmax(x, 0), ((3, 2, 2),)),
    "log_softmax": Op(F.log_softmax, ref.log_softmax, peer="log_softmax:-1"),
    "log_softmax 1": Op(
        lambda x: F.log_softmax(x, 1), lambda x: ref.log_softmax(x, 1), ((2, 3, 2),)
    ),
    "reshape": Op(lambda x: F.reshape(x, (3, -1)), lambda x: x.reshape(3, -1)),
    "permute": Op(lambda x: F.permute(x, (2, 0, -2)), lambda x: x.transpose(2, 0, 1), ((2, 3, 4),)),
    "transpose": Op(lambda x: F.transpose(x, 0, 2), lambda x: x.swapaxes(0, 2), ((2, 3, 4),)),
    "broadcast_to": Op(
        lambda x: F.broadcast_to(x, (2, 2, 3)), lambda x: np.broadcast_to(x, (2, 2, 3)), ((2, 1),)
    ),
    "slice": Op(lambda x: F.index(x, np.s_[::-1, 1:]), lambda x: x[::-1, 1:]),
    "element": Op(lambda x: F.index(x, (1, 2)), lambda x: x[1, 2]),
    "new axis": Op(lambda x: F.index(x, np.s_[..., None, 0]), lambda x: x[..., None, 0]),
    "mask": Op(lambda x: F.index(x, CONDITION), lambda x: x[CONDITION]),
    "repeated rows": Op(lambda x: F.index(x, [0, 1, 0, 0]), lambda x: x[[0, 1, 0, 0]]),
    "concatenate": Op(
        lambda a, b: F.concatenate([a, b, a], 1),
        lambda a, b: np.concatenate([a, b, a], 1),
        ((2, 3), (2, 1)),
    ),
    "stack": Op(lambda a, b: F.stack([a, b], -1), lambda a, b: np.stack([a, b], -1), PAIR),
    "copy": Op(F.copy, np.copy),
    "matmul": Op(F.matmul, np.matmul, ((2, 3), (3, 4)), peer="matmul"),
    "matmul transposed": Op(
        lambda a, b: F.matmul(F.transpose(a), F.transpose(b)),
        lambda a, b: a.T @ b.T,
        ((3, 2), (4, 3)),
    ),
    "matmul vectors": Op(F.matmul, np.matmul, ((3,), (3,)), peer="matmul"),
    "matmul vector matrix": Op(F.matmul, np.matmul, ((3,), (3, 2)), peer="matmul"),
    "matmul matrix vector": Op(F.matmul, np.matmul, ((2, 3), (3,)), peer="matmul"),
    "matmul batch vector": Op(F.matmul, np.matmul, ((4, 2, 3), (3,)), peer="matmul"),
    "matmul vector batch": Op(F.matmul, np.matmul, ((2,), (4, 2, 3)), peer="matmul"),
    "matmul batch matrix": Op(F.matmul, np.matmul, ((4, 2, 3), (3, 2)), peer="matmul"),
    "matmul matrix batch": Op(F.matmul, np.matmul, ((2, 3), (4, 3, 2)), peer="matmul"),
    "matmul broadcast": Op(F.matmul, np.matmul, ((2, 1, 2, 3), (3, 3, 2)), peer="matmul"),
    "matmul bias": Op(
        lambda a, b, c: F.matmul(a, b, bias=c), lambda a, b, c: a @ b + c, ((2, 3), (3, 4), (4,))
    ),
    **{
        f"matmul bias {name}": Op(
            lambda a, b, c, name=name: F.matmul(a, b, bias=c, activation=name),
            lambda a, b, c, f=f: f(a @ b + c),
            ((2, 3), (3, 4), (4,)),
        )
        for name, f in {
            "relu": ref.relu,
            "sigmoid": ref.sigmoid,
            "tanh": ref.tanh,
            "softplus": ref.softplus,
        }.items()
    },
    "linear": Op(F.linear, ref.linear, ((5, 3), (4, 3), (4,))),
    "linear 1-d": Op(F.linear, ref.linear, ((3,), (4, 3), (4,))),
    "linear 3-d": Op(F.linear, ref.linear, ((2, 3, 3), (4, 3), (4,))),
    "block_linear": Op(F.block_linear, ref.block_linear, ((5, 6), (2, 4, 3), (8,))),
    "block_linear 3-d": Op(F.block_linear, ref.block_linear, ((2, 2, 6), (3, 1, 2), (3,))),
    "batch_norm": Op(
        lambda x, g, b: F.batch_norm(x, g, b, training=True)[0],
        lambda x, g, b: ref.batch_norm(x, g, b, 1e-5),
        ((5, 3), (3,), (3,)),
    ),
    "batch_norm 4-d": Op(
        lambda x, g, b: F.batch_norm(x, g, b, training=True, eps=0.1)[0],
        lambda x, g, b: ref.batch_norm(x, g, b, 0.1),
        ((2, 2, 2, 2), (2,), (2,)),
    ),
    "batch_norm channels last": Op(
        lambda x, g, b: F.batch_norm(x, g, b, training=True, axis=-1)[0],
        lambda x, g, b: ref.batch_norm(x, g, b, 1e-5, axis=-1),
        ((2, 2, 2, 3), (3,), (3,)),
    ),
    "layer_norm": Op(
        F.layer_norm, lambda x, g, b: ref.layer_norm(x, g, b, 1e-5), ((2, 3, 4), (4,), (4,))
    ),
    **{
        f"mse {r}": Op(
            lambda x, t, r=r: F.mse_loss(x, t, reduction=r), reduce(ref.mse, r), ((3, 2), (3, 2))
        )
        for r in ref.REDUCE
    },
    **{
        f"huber {r}": Op(
            lambda x, t, r=r: F.huber_loss(x, t, delta=0.7, reduction=r),
            reduce(lambda x, t: ref.huber(x, t, 0.7), r),
            ((3, 2), (3, 2)),
        )
        for r in ref.REDUCE
    },
    **{
        f"cross_entropy {r} {s}": Op(
            lambda x, r=r, s=s: F.cross_entropy(x, LABELS, label_smoothing=s, reduction=r),
            reduce(lambda x, s=s: ref.cross_entropy(x, LABELS, s), r),
            ((4, 5),),
        )
        for r in ("mean", "sum", "none")
        for s in (0.0, 0.1)
    },
    **{
        f"nll {r}": Op(
            lambda x, r=r: F.nll_loss(x, LABELS, reduction=r),
            reduce(lambda x: ref.nll(x, LABELS), r),
            ((4, 5),),
        )
        for r in ("mean", "sum", "none")
    },
    "bce": Op(
        lambda x: F.binary_cross_entropy_with_logits(
            x, (CONDITION * 0.75).astype(x.dtype), pos_weight=1.5
        ),
        lambda x: ref.bce_with_logits(x, CONDITION * 0.75, 1.5).mean(),
    ),
    "dropout": Op(
        lambda x: F.dropout(x, 0.5, seed=3, step=2, module=1) * 2.0,
        lambda x: x * (4.0 * (F.dropout(np.ones_like(x), 0.5, seed=3, step=2, module=1) != 0)),
        ((4, 3),),
    ),
}


def inputs(name: str, dtype: type = np.float64) -> list[np.ndarray]:
    """Drawn per row; distinct values at least 0.01 apart and away from 0 keep off every kink."""
    op = OPS[name]
    draw = np.random.default_rng(sum(map(ord, name)))
    sizes = [int(np.prod(shape)) for shape in op.shapes]
    grid = np.linspace(op.low, op.high, max(4 * sum(sizes), 50)) + 0.0123
    values = draw.permutation(grid)[: sum(sizes)]
    parts = np.split(values, np.cumsum(sizes)[:-1])
    return [p.reshape(s).astype(dtype) for p, s in zip(parts, op.shapes, strict=True)]


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
    x = tw.Tensor(arrays[0], requires_grad=True)
    (slope,) = tw.grad(f(x, *arrays[1:]).sum(), [x], create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        slope.sum().backward()


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
