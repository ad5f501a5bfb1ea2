"""Batch normalisation: the paper's formulas, hard numbers, its halves, and arrays left as found."""

from __future__ import annotations

import itertools
import math
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
ACTIVATIONS = ["relu", "leaky_relu", "sigmoid", "tanh", "softplus"]

# Shape and channel axis: one tile and many, planes in pieces, single planes, single channels.
SHAPES = [
    ((2, 3), 1),
    ((256, 100), 1),
    ((3000, 70), 1),
    ((5, 4, 3, 2), 1),
    ((2, 3, 70, 71), 1),
    ((700, 5, 2, 2), 1),
    ((6, 7, 8, 9), -1),
    ((6, 7, 8, 9), 0),
    ((9, 1, 5), 1),
    ((12, 1), -1),
    ((2, 9000), 1),
]


def tolerance(dtype: str, n: int = 1) -> float:
    """Relative to results of order 1. Statistics are float64 sums for either dtype; applying them
    rounds at most 6 times. Sums of n terms grow like their square root."""
    return 8 * float(np.finfo(dtype).eps) * math.sqrt(n) + 300 * 2.0**-53


def normal(*shape: int, seed: int = 0, dtype: str = "float64", offset: float = 0.0) -> Array:
    return (np.random.default_rng(seed).normal(size=shape) + offset).astype(dtype)


class Case:
    """Drawn arguments of one call, named as in `batch_norm`."""

    def __init__(self, shape: tuple[int, ...], axis: int, dtype: str = "float64") -> None:
        channels = shape[axis]
        self.axis, self.dtype, self.n = axis, dtype, math.prod(shape) // max(1, channels)
        self.x = normal(*shape, dtype=dtype, offset=3)
        self.dy = normal(*shape, seed=1, dtype=dtype)
        self.gamma = normal(channels, seed=2, dtype=dtype, offset=1)
        self.beta = normal(channels, seed=3, dtype=dtype)
        self.running_mean = normal(channels, seed=4, dtype=dtype)
        self.running_var = np.abs(normal(channels, seed=5, dtype=dtype)) + np.asarray(0.5, dtype)
        self.residual = normal(*shape, seed=6, dtype=dtype)

    def forward(self, *, training: bool = True, **options: Any) -> tuple[Array, Any]:
        return _core.batch_norm(
            self.x,
            self.gamma,
            self.beta,
            self.running_mean,
            self.running_var,
            training=training,
            axis=self.axis,
            **options,
        )

    def backward(self, saved: Any) -> tuple[Array, ...]:
        return _core.batch_norm_backward(self.dy, self.x, self.gamma, saved, axis=self.axis)

    def along_channels(self, vector: Array) -> Array:
        shape = [1] * self.x.ndim
        shape[self.axis] = -1
        return vector.reshape(shape)


def bits(*arrays: Array) -> list[bytes]:
    return [array.tobytes() for array in arrays]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_training_matches_the_paper(
    isa: str, shape: tuple[int, ...], axis: int, dtype: str
) -> None:
    case = Case(shape, axis, dtype)
    old_mean, old_var = case.running_mean.copy(), case.running_var.copy()
    y, saved = case.forward(momentum=0.3)
    dx, dgamma, dbeta = case.backward(saved)
    expected, mean, var = reference.batch_norm(case.x, case.gamma, case.beta, axis=axis)
    unbiased = var * case.n / (case.n - 1)
    close = {"rtol": tolerance(dtype), "atol": tolerance(dtype) * 4}
    np.testing.assert_allclose(y, expected, rtol=0, atol=tolerance(dtype) * 8)
    np.testing.assert_allclose(case.running_mean, 0.7 * old_mean + 0.3 * mean, **close)
    np.testing.assert_allclose(case.running_var, 0.7 * old_var + 0.3 * unbiased, **close)
    gradients = reference.batch_norm_backward(case.dy, case.x, case.gamma, axis=axis)
    scale = 1 + np.abs(gradients[0]).max()
    np.testing.assert_allclose(dx, gradients[0], rtol=0, atol=tolerance(dtype) * 8 * scale)
    for got, wanted in zip((dgamma, dbeta), gradients[1:], strict=True):
        np.testing.assert_allclose(
            got, wanted, rtol=tolerance(dtype), atol=tolerance(dtype, case.n)
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_evaluation_uses_and_keeps_the_running_statistics(
    shape: tuple[int, ...], axis: int, dtype: str
) -> None:
    case = Case(shape, axis, dtype)
    before = bits(case.running_mean, case.running_var)
    y, saved = case.forward(training=False)
    dx, dgamma, dbeta = case.backward(saved)
    assert bits(case.running_mean, case.running_var) == before
    wide = {
        k: case.along_channels(v.astype("f8")) for k, v in vars(case).items() if np.ndim(v) == 1
    }
    rstd = 1 / np.sqrt(wide["running_var"] + 1e-5)
    xhat = (case.x - wide["running_mean"]) * rstd
    others = tuple(i for i in range(case.x.ndim) if i != axis % case.x.ndim)
    atol = tolerance(dtype) * 30
    np.testing.assert_allclose(y, wide["gamma"] * xhat + wide["beta"], rtol=0, atol=atol)
    np.testing.assert_allclose(dx, wide["gamma"] * rstd * case.dy, rtol=tolerance(dtype))
    dy = case.dy.astype("f8")
    atol = tolerance(dtype, case.n) * 8
    np.testing.assert_allclose(dgamma, (dy * xhat).sum(others), rtol=1e-6, atol=atol)
    np.testing.assert_allclose(dbeta, dy.sum(others), rtol=1e-6, atol=atol)


@given(
    shape=st.lists(st.integers(1, 7), min_size=2, max_size=4),
    axis=st.sampled_from([1, -1]),
    dtype=st.sampled_from(DTYPES),
    activation=st.sampled_from([None, "relu"]),
)
def test_any_shape_matches_the_paper(
    shape: list[int], axis: int, dtype: str, activation: str | None
) -> None:
    case = Case(tuple(shape), axis, dtype)
    if case.n == 1:
        return
    y, saved = case.forward(activation=activation)
    expected, _, _ = reference.batch_norm(case.x, case.gamma, case.beta, axis=axis)
    if activation:
        expected = np.maximum(expected, 0)
        case.dy = case.dy * (y > 0)
    np.testing.assert_allclose(y, expected, rtol=0, atol=tolerance(dtype) * 30)
    gradients = reference.batch_norm_backward(case.dy, case.x, case.gamma, axis=axis)
    scale = 1 + max(np.abs(g).max() for g in gradients)
    for got, wanted in zip(case.backward(saved), gradients, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance(dtype) * 30 * scale)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("activation", [None, *ACTIVATIONS])
@pytest.mark.parametrize(("shape", "axis"), SHAPES[:7])
def test_fused_activation_and_residual_equal_separate_calls(
    shape: tuple[int, ...], axis: int, activation: str | None, training: bool
) -> None:
    case = Case(shape, axis, "float32")
    y, saved = case.forward(training=training, residual=case.residual, activation=activation)
    plain, plain_saved = Case(shape, axis, "float32").forward(training=training)
    separate = _core.add(plain, case.residual)
    inflow = case.dy
    if activation:
        separate = getattr(_core, activation)(separate)
        inflow = getattr(_core, activation + "_backward")(case.dy, separate)
    assert bits(y) == bits(separate)
    got = case.backward(saved)
    case.dy = inflow
    assert bits(*got) == bits(*case.backward(plain_saved), inflow)
    assert not np.shares_memory(got[3], case.dy)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_fused_activation_without_residual_equals_separate_calls(activation: str) -> None:
    for shape, axis in SHAPES:
        case = Case(shape, axis, "float32")
        y, saved = case.forward(activation=activation)
        got = case.backward(saved)
        plain, plain_saved = case.forward()
        assert bits(y) == bits(getattr(_core, activation)(plain))
        case.dy = getattr(_core, activation + "_backward")(case.dy, y)
        assert bits(*got) == bits(*case.backward(plain_saved))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_halves_compose_to_the_fused_calls(shape: tuple[int, ...], axis: int, dtype: str) -> None:
    case = Case(shape, axis, dtype)
    y, saved = case.forward()
    n, mean, m2 = _core.batch_norm_statistics(case.x, axis=axis)
    rstd = 1 / np.sqrt(m2 / n + 1e-5)
    assert n == case.n
    assert bits(mean, rstd) == bits(*saved[:2])
    half = _core.batch_norm_apply(case.x, case.gamma, case.beta, mean, rstd, axis=axis)
    assert bits(y) == bits(half)
    sums = _core.batch_norm_backward_sums(case.dy, case.x, mean, rstd, axis=axis)
    dx = _core.batch_norm_backward_apply(
        case.dy, case.x, case.gamma, mean, rstd, *sums, n, axis=axis
    )
    dbeta, dgamma = (s.astype(dtype) for s in sums)
    assert bits(dx, dgamma, dbeta) == bits(*case.backward(saved))


@pytest.mark.parametrize(("shape", "axis"), [*SHAPES, ((9, 40, 30, 30), 1), ((300, 1000), 1)])
def test_bits_do_not_depend_on_isa_or_threads(shape: tuple[int, ...], axis: int) -> None:
    def results() -> list[bytes]:
        case = Case(shape, axis, "float32")
        y, saved = case.forward(activation="relu")
        return bits(y, *saved[:2], *case.backward(saved), case.running_mean, case.running_var)

    expected = results()
    for isa, threads in itertools.product(_core.available_isas(), (1, 2, 3)):
        _core.use_isa(isa)
        _core.set_num_threads(threads)
        assert results() == expected, (isa, threads)


@pytest.mark.parametrize(
    "layout",
    [
        np.asfortranarray,
        lambda a: np.flip(np.flip(a).copy()),
        lambda a: np.moveaxis(np.moveaxis(a, 1, -1).copy(), -1, 1),  # channels-last in memory
        lambda a: np.pad(a, [(0, 0)] * (a.ndim - 1) + [(1, 1)])[..., 1:-1],
    ],
)
def test_strided_arguments_give_the_same_bits(layout: Callable[[Array], Array]) -> None:
    case = Case((4, 3, 5, 6), 1, "float32")
    y, saved = case.forward(residual=case.residual)
    expected = bits(y, *case.backward(saved))
    case.x, case.dy, case.residual = layout(case.x), layout(case.dy), layout(case.residual)
    case.gamma, case.beta = (np.repeat(v, 2)[::2] for v in (case.gamma, case.beta))
    y, saved = case.forward(residual=case.residual)
    assert bits(y, *case.backward(saved)) == expected


def test_strided_running_statistics_are_updated_in_place() -> None:
    case = Case((8, 3), 1)
    plain = Case((8, 3), 1)
    block = np.zeros((2, 7))
    block[0, ::3], block[1, ::3] = case.running_mean, case.running_var
    case.running_mean, case.running_var = block[0, ::3], block[1, ::3]
    case.forward()
    plain.forward()
    np.testing.assert_array_equal(block[:, ::3], [plain.running_mean, plain.running_var])
    np.testing.assert_array_equal(block[:, 1::3], 0)


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((2**20, 2), 1), ((2, 2**20), 0), ((16, 3, 256, 256), 1), ((4, 64, 64, 64), -1)],
)
def test_small_deviations_around_a_large_mean(isa: str, shape: tuple[int, ...], axis: int) -> None:
    """Mean 1e4, deviation 1e-2, float32: ten units in the last place. E[x²] - E[x]² gives noise."""
    x = (1e4 + 1e-2 * np.random.default_rng(0).normal(size=shape)).astype("f4")
    n, mean, m2 = _core.batch_norm_statistics(x, axis=axis)
    rows = reference.rows_of(x, axis)
    exact_mean = reference.sums(rows - 1e4) / n + 1e4
    exact_m2 = reference.sums((rows - exact_mean) ** 2)[:, 0]
    np.testing.assert_allclose(mean, exact_mean[:, 0], rtol=1e-14)
    np.testing.assert_allclose(m2, exact_m2, rtol=1e-9)
    y, _ = _core.batch_norm(x, None, None, None, None, training=True, eps=0, axis=axis)
    expected = (rows - exact_mean) / np.sqrt(exact_m2 / n)[:, None]
    assert np.abs(reference.rows_of(y, axis) - expected).max() < 4e-6


@pytest.mark.parametrize("value", [0.1, 1e-30, 1e6, -7.0])
def test_a_constant_channel_has_no_deviation(value: float) -> None:
    x = np.full((50, 3, 7, 7), value, "f4")
    _, mean, m2 = _core.batch_norm_statistics(x)
    np.testing.assert_allclose(mean, np.float32(value), rtol=1e-15)
    assert np.all(m2 <= (1e-13 * abs(value)) ** 2 * 2450)
    y, _ = _core.batch_norm(x, None, None, None, None, training=True)
    np.testing.assert_allclose(y, 0, atol=abs(value) * 1e-12)


def test_statistics_of_parts_merge_to_those_of_the_whole() -> None:
    x = normal(600, 5, 4, offset=100)
    parts = [_core.batch_norm_statistics(x[:150]), _core.batch_norm_statistics(x[150:])]
    (n_a, mean_a, m2_a), (n_b, mean_b, m2_b) = parts
    n, mean, m2 = _core.batch_norm_statistics(x)
    delta = mean_b - mean_a
    assert n == n_a + n_b
    np.testing.assert_allclose(mean, mean_a + delta * n_b / n, rtol=1e-14)
    np.testing.assert_allclose(m2, m2_a + m2_b + delta**2 * n_a * n_b / n, rtol=1e-13)


def test_the_gradient_is_orthogonal_to_shift_and_scale_of_a_channel() -> None:
    """With eps = 0, y does not change under x -> a x + b, so neither direction has a gradient."""
    case = Case((40, 3, 5), 1)
    _, saved = case.forward(eps=0)
    dx, *_ = case.backward(saved)
    np.testing.assert_allclose(dx.sum((0, 2)), 0, atol=1e-12)
    np.testing.assert_allclose((dx * case.x).sum((0, 2)), 0, atol=1e-12)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("activation", [None, "sigmoid", "tanh", "softplus"])
@pytest.mark.parametrize("axis", [1, -1])
def test_gradients_match_finite_differences(
    axis: int, activation: str | None, training: bool
) -> None:
    case = Case((4, 3, 2, 3), axis)

    def loss() -> float:
        fresh = Case((4, 3, 2, 3), axis)
        case.running_mean, case.running_var = fresh.running_mean, fresh.running_var
        y, _ = case.forward(training=training, residual=case.residual, activation=activation)
        return float((y * case.dy).sum())

    _, saved = case.forward(training=training, residual=case.residual, activation=activation)
    h = 1e-3
    names = ["x", "gamma", "beta", "residual"]
    for name, got in zip(names, case.backward(saved), strict=True):
        array = getattr(case, name)
        for at in list(np.ndindex(array.shape))[::5]:
            kept, values = array[at], {}
            for step in (-2, -1, 1, 2):
                array[at] = kept + step * h
                values[step] = loss()
            array[at] = kept
            expected = (8 * (values[1] - values[-1]) - (values[2] - values[-2])) / (12 * h)
            assert got[at] == pytest.approx(expected, rel=1e-6, abs=1e-9), (name, at)


def test_absent_gamma_and_beta_are_one_and_zero() -> None:
    case = Case((20, 3, 4), 1, "float32")
    ones, zeros = np.ones(3, "f4"), np.zeros(3, "f4")
    y, saved = _core.batch_norm(case.x, None, None, None, None, training=True)
    expected, _ = _core.batch_norm(case.x, ones, zeros, None, None, training=True)
    assert bits(y) == bits(expected)
    got = _core.batch_norm_backward(case.dy, case.x, None, saved)
    assert bits(*got) == bits(*_core.batch_norm_backward(case.dy, case.x, ones, saved))


def test_momentum_one_over_k_gives_the_average_of_k_batches() -> None:
    running_mean, running_var = np.zeros(3), np.zeros(3)
    batches = [normal(30, 3, seed=k) for k in range(5)]
    for k, x in enumerate(batches, 1):
        _core.batch_norm(x, None, None, running_mean, running_var, training=True, momentum=1 / k)
    np.testing.assert_allclose(running_mean, np.mean([x.mean(0) for x in batches], 0), rtol=1e-12)
    variances = [x.var(0, ddof=1) for x in batches]
    np.testing.assert_allclose(running_var, np.mean(variances, 0), rtol=1e-12)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("shape", [(40, 6), (40, 6, 3)])
def test_bad_values_stay_in_their_channel(isa: str, value: float, shape: tuple[int, ...]) -> None:
    case = Case(shape, 1)
    case.x[17, 2] = value
    y, saved = case.forward()
    dx, dgamma, _ = case.backward(saved)
    clean = [c for c in range(6) if c != 2]
    assert np.isnan(y[:, 2]).any()
    assert np.isnan(case.running_var[2])
    for array in (np.moveaxis(y, 1, 0), np.moveaxis(dx, 1, 0), dgamma, case.running_mean):
        assert np.isfinite(array[clean]).all()


@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 4), (2, 3, 0), (5, 0), (5, 0, 2)])
@pytest.mark.parametrize("training", [True, False])
def test_empty_batches_give_empty_results_and_move_nothing(
    shape: tuple[int, ...], training: bool
) -> None:
    case = Case(shape, 1)
    before = bits(case.running_mean, case.running_var)
    y, saved = case.forward(training=training, residual=case.residual, activation="relu")
    dx, dgamma, dbeta, dresidual = case.backward(saved)
    assert y.shape == dx.shape == dresidual.shape == shape
    np.testing.assert_array_equal([dgamma, dbeta], np.zeros((2, shape[1])))
    assert bits(case.running_mean, case.running_var) == before
    n, mean, m2 = _core.batch_norm_statistics(case.x)
    assert n == shape[0] * math.prod(shape[2:])
    np.testing.assert_array_equal([mean, m2], np.zeros((2, shape[1])))  # neutral in a merge


# With two elements a channel, rstd can be large, and torch's float32 arithmetic shows.
TORCH_SHAPES = [(shape, axis) for shape, axis in SHAPES if axis == 1 and shape != (2, 9000)]


@pytest.mark.torch
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("shape", "axis"), TORCH_SHAPES)
def test_agrees_with_torch(shape: tuple[int, ...], axis: int, training: bool, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    case = Case(shape, axis, dtype)
    x, gamma, beta = (torch.tensor(a, requires_grad=True) for a in (case.x, case.gamma, case.beta))
    running = [torch.tensor(case.running_mean), torch.tensor(case.running_var)]
    expected = torch.nn.functional.batch_norm(x, *running, gamma, beta, training)
    expected.backward(torch.tensor(case.dy))
    y, saved = case.forward(training=training)
    loose = {"rtol": 10 * tolerance(dtype), "atol": 40 * tolerance(dtype, case.n)}
    np.testing.assert_allclose(y, expected.detach().numpy(), **loose)
    for got, wanted in zip(case.backward(saved), (x, gamma, beta), strict=True):
        np.testing.assert_allclose(got, wanted.grad.numpy(), **loose)
    np.testing.assert_allclose(case.running_mean, running[0].numpy(), **loose)
    np.testing.assert_allclose(case.running_var, running[1].numpy(), **loose)


F4 = np.float32
ONE_ARRAY = np.ones(3, F4)

# Arguments that replace the good ones, the error, and what its message says.
BAD_FORWARD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"x": np.ones((8, 3, 2), "i4")}, TypeError, "x must be float32 or float64, got int32"),
    ({"x": [[1.0]]}, TypeError, "x must be an array, got list"),
    ({"x": np.ones(3, F4)}, ValueError, "axis is 1, expected between -1 and 0"),
    ({"axis": 3}, ValueError, "axis is 3, expected between -3 and 2"),
    ({"x": np.ones((1, 3), F4), "residual": None}, ValueError,
     r"training needs more than one element per channel, x has shape \(1, 3\)"),
    ({"gamma": np.ones(4, F4)}, ValueError, r"gamma must have shape \(3,\), got \(4,\)"),
    ({"gamma": np.ones((1, 3), F4)}, ValueError, r"gamma must have shape \(3,\), got \(1, 3\)"),
    ({"beta": np.ones(3)}, TypeError, "beta is float64 but x is float32"),
    ({"residual": np.ones((8, 3), F4)}, ValueError,
     r"residual has shape \(8, 3\), expected \(8, 3, 2\) like x"),
    ({"residual": np.ones((8, 3, 2))}, TypeError, "residual is float64 but x is float32"),
    ({"running_mean": np.ones(2, F4)}, ValueError,
     r"running_mean must have shape \(3,\), got \(2,\)"),
    ({"running_var": np.ones(3)}, TypeError, "running_var is float64 but x is float32"),
    ({"running_var": None}, ValueError, "running_mean and running_var go together"),
    ({"running_mean": None, "running_var": None, "training": False}, ValueError,
     "evaluation needs running_mean and running_var, got None"),
    ({"running_var": np.broadcast_to(F4(1), 3)}, ValueError, "running_var is read-only"),
    ({"running_mean": np.lib.stride_tricks.as_strided(np.ones(3, F4), (3,), (0,))}, ValueError,
     "running_mean overlaps itself"),
    ({"running_mean": ONE_ARRAY, "running_var": ONE_ARRAY}, ValueError,
     "running_mean shares memory with running_var"),
    ({"running_mean": ONE_ARRAY, "gamma": ONE_ARRAY}, ValueError,
     "running_mean shares memory with gamma"),
    ({"momentum": 1.5}, ValueError, r"momentum must be in \[0, 1\], got 1.5"),
    ({"momentum": float("nan")}, ValueError, r"momentum must be in \[0, 1\], got nan"),
    ({"eps": -1e-5}, ValueError, "eps must be at least 0 and finite, got -1e-05"),
    ({"eps": float("inf")}, ValueError, "eps must be at least 0 and finite, got inf"),
    ({"activation": "swish"}, ValueError, "activation must be None or one of .* got 'swish'"),
    ({"activation": "gelu"}, ValueError, "activation 'gelu' cannot be fused"),
]  # fmt: skip


@pytest.mark.parametrize(("replace", "error", "message"), BAD_FORWARD)
def test_bad_arguments_are_named_and_nothing_is_written(
    replace: dict[str, Any], error: type[Exception], message: str
) -> None:
    case = Case((8, 3, 2), 1, "float32")
    arguments = {k: v for k, v in vars(case).items() if k not in ("axis", "dtype", "n", "dy")}
    arguments |= {"training": True, **replace}
    arrays = [a for a in arguments.values() if isinstance(a, np.ndarray)]
    before = bits(*arrays)
    with pytest.raises(error, match=f"^batch_norm: {message}"):
        _core.batch_norm(**arguments)
    assert bits(*arrays) == before


X = normal(8, 3, dtype="float32")
SAVED = _core.batch_norm(X, None, None, None, None, training=True)[1]
MEAN, RSTD = SAVED[:2]

BAD_OTHERS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: _core.batch_norm_backward(X[:4], X, None, SAVED), ValueError,
     r"batch_norm_backward: dy has shape \(4, 3\), expected \(8, 3\) like x"),
    (lambda: _core.batch_norm_backward(X.astype("f8"), X, None, SAVED), TypeError,
     "batch_norm_backward: dy is float64 but x is float32"),
    (lambda: _core.batch_norm_backward(X, X, np.ones(2, F4), SAVED), ValueError,
     r"batch_norm_backward: gamma must have shape \(3,\)"),
    (lambda: _core.batch_norm_backward(X[:, :2], X[:, :2], None, SAVED), ValueError,
     r"batch_norm_backward: saved mean must have shape \(2,\), got \(3,\)"),
    (lambda: _core.batch_norm_backward(X, X, None, SAVED[:2]), ValueError,
     "batch_norm_backward: saved must be what batch_norm returned, got a tuple of 2"),
    (lambda: _core.batch_norm_backward(X, X, None, (MEAN, RSTD, True, "relu", None, False)),
     ValueError,
     "batch_norm_backward: saved must be what batch_norm returned, it lacks the output"),
    (lambda: _core.batch_norm_statistics(np.ones((2, 3), "i8")), TypeError,
     "batch_norm_statistics: x must be float32 or float64, got int64"),
    (lambda: _core.batch_norm_apply(X, None, None, MEAN[:2], RSTD), ValueError,
     r"batch_norm_apply: mean must have shape \(3,\), got \(2,\)"),
    (lambda: _core.batch_norm_apply(X, None, None, MEAN, np.ones(3, "i4")), TypeError,
     "batch_norm_apply: rstd is int32 but x is float32"),
    (lambda: _core.batch_norm_backward_sums(X, X, MEAN, RSTD[:1]), ValueError,
     r"batch_norm_backward_sums: rstd must have shape \(3,\), got \(1,\)"),
    (lambda: _core.batch_norm_backward_apply(X, X, None, MEAN, RSTD, MEAN, MEAN[:1], 8), ValueError,
     r"batch_norm_backward_apply: sum_dy_xhat must have shape \(3,\), got \(1,\)"),
    (lambda: _core.batch_norm_backward_apply(X, X, None, MEAN, RSTD, MEAN, MEAN, 0), ValueError,
     "batch_norm_backward_apply: n must be the number of elements per channel over .*, got 0"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), BAD_OTHERS)
def test_bad_arguments_of_the_other_calls_are_named(
    call: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()
