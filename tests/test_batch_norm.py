"""Batch normalisation: the paper's formulas and hard numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_norm_table import DTYPES, SHAPES, Case, bits, normal, tolerance
from reference import norm as reference
from thalweg import _core


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


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "axis"), [((4, 1, 25_000_000), 1), ((50_000_000, 2), 1)])
def test_a_hundred_million_elements_of_a_channel(shape: tuple[int, ...], axis: int) -> None:
    """Counted statistics: x = 1e4 + (i mod 3 - 1) / 64 is exact in float32, and so are its moments.

    A float32 sum stops at 2^24 ones; E[x²] - E[x]² in float64 loses the variance's last 8 digits.
    """
    elements = math.prod(shape)
    x = np.resize(np.array([-1, 0, 1], "f4") / 64 + 1e4, elements).astype("f4").reshape(shape)
    n, mean, m2 = _core.batch_norm_statistics(x, axis=axis)
    assert n == elements // shape[axis]
    for c in range(shape[axis]):
        values = (np.arange(c, c + 3 * shape[axis], shape[axis]) % 3 - 1) / 64  # repeat in order
        whole, left = divmod(n, 3)
        total = values[:left].sum()
        expected = 1e4 + total / n
        squares = whole * (values**2).sum() + (values[:left] ** 2).sum()
        assert mean[c] == pytest.approx(expected, rel=1e-15)
        assert m2[c] == pytest.approx(squares - total**2 / n, rel=1e-13)
    y, _ = _core.batch_norm(x, None, None, None, None, training=True, eps=0, axis=axis)
    assert np.abs(y).max() == pytest.approx(math.sqrt(1.5), rel=4e-7)


@pytest.mark.parametrize("value", [0.1, 1e-30, 1e6, -7.0])
def test_a_constant_channel_has_no_deviation(value: float) -> None:
    x = np.full((50, 3, 7, 7), value, "f4")
    _, mean, m2 = _core.batch_norm_statistics(x)
    np.testing.assert_allclose(mean, np.float32(value), rtol=1e-15)
    assert np.all(m2 <= (1e-13 * abs(value)) ** 2 * 2450)
    y, _ = _core.batch_norm(x, None, None, None, None, training=True)
    np.testing.assert_allclose(y, 0, atol=abs(value) * 1e-12)


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


@pytest.mark.parametrize("at", [0, 5])
@pytest.mark.parametrize("shape", [(40, 9), (40, 9, 3), (40, 20)])
def test_an_infinite_element_gives_an_infinite_mean(shape: tuple[int, ...], at: int) -> None:
    """The sums are taken relative to a channel's first element, which infinity cannot be."""
    x = normal(*shape)
    x[at, 2] = -np.inf
    _, mean, m2 = _core.batch_norm_statistics(x)
    assert mean[2] == -np.inf
    assert np.isnan(m2[2])


@pytest.mark.parametrize("shape", [(4096, 2), (1, 2, 4096), (65536, 3), (40000, 8), (70000, 16)])
def test_an_outlier_that_comes_first_costs_few_digits(shape: tuple[int, ...]) -> None:
    """The first element of a tile is the shift of its sums; worst where it lies apart."""
    x = normal(*shape, offset=7)
    x.reshape(*shape[:2], -1)[0, :, 0] = 1e9
    n, mean, m2 = _core.batch_norm_statistics(x)
    rows = reference.rows_of(x, 1)
    exact = reference.sums(rows) / n
    exact_m2 = reference.sums((rows - exact) ** 2)[:, 0]
    assert np.all(np.abs(mean - exact[:, 0]) < 1e-12 * np.sqrt(exact_m2 / n))
    np.testing.assert_allclose(m2, exact_m2, rtol=1e-10)


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
