"""Batch normalisation, bit for bit: fused calls and halves, threads, layouts, pieces."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from batch_norm_table import DTYPES, SHAPES, Array, Case, bits, normal
from thalweg import _core

ACTIVATIONS = ["relu", "leaky_relu", "sigmoid", "tanh", "softplus"]


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


def test_statistics_of_parts_merge_to_those_of_the_whole() -> None:
    x = normal(600, 5, 4, offset=100)
    parts = [_core.batch_norm_statistics(x[:150]), _core.batch_norm_statistics(x[150:])]
    (n_a, mean_a, m2_a), (n_b, mean_b, m2_b) = parts
    n, mean, m2 = _core.batch_norm_statistics(x)
    delta = mean_b - mean_a
    assert n == n_a + n_b
    np.testing.assert_allclose(mean, mean_a + delta * n_b / n, rtol=1e-14)
    np.testing.assert_allclose(m2, m2_a + m2_b + delta**2 * n_a * n_b / n, rtol=1e-13)


@pytest.mark.parametrize("activation", [None, "relu", "tanh"])
def test_results_written_past_the_caches_are_those_of_their_parts(
    isa: str, activation: str | None
) -> None:
    """Beyond 16 MiB planes are written otherwise, in pieces and with heads that are not aligned."""
    case = Case((3, 2, 727, 1009), 1, "float32")
    y, saved = case.forward(residual=case.residual, activation=activation)
    got = case.backward(saved)
    mean, rstd = saved[:2]
    inflow = getattr(_core, f"{activation}_backward")(case.dy, y) if activation else case.dy
    sums = _core.batch_norm_backward_sums(inflow, case.x, mean, rstd)
    options = {"axis": 0, "activation": activation}
    for n, c in np.ndindex(3, 2):
        channel = slice(c, c + 1)
        gamma, beta, residual = case.gamma[channel], case.beta[channel], case.residual[n, channel]
        moments = mean[channel], rstd[channel]
        x = case.x[n, channel]
        part = _core.batch_norm_apply(x, gamma, beta, *moments, residual=residual, **options)
        assert bits(part) == bits(y[n, channel])
        totals = [total[channel] for total in sums]
        arguments = (inflow[n, channel], x, gamma, *moments, *totals, case.n)
        part = _core.batch_norm_backward_apply(*arguments, axis=0)
        assert bits(part, inflow[n, channel]) == bits(got[0][n, channel], got[3][n, channel])
