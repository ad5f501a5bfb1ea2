"""Optimizers against float64 references; what the papers promise; forms of parameters."""

from __future__ import annotations

import doctest
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import thalweg as tw
from optim_table import (
    ROWS,
    Options,
    Row,
    drawn,
    every_dtype,
    every_variant,
    reference_options,
)
from reference import optim as reference
from thalweg import _core
from thalweg.optim import LAMB, LARS, SGD, Adam, Optimizer

SHAPES = st.lists(st.lists(st.integers(0, 7), max_size=3).map(tuple), min_size=1, max_size=3)


def tolerance(dtype: Any, steps: int) -> float:
    """Every step rounds a few times, at most by eps/2 of the largest value each; errors of state
    and parameter add up over the steps, and roots and quotients of means multiply them by a few."""
    return 16 * float(np.finfo(dtype).eps) * steps


# --- against the references ----------------------------------------------------------------------


@every_variant
@every_dtype
@settings(max_examples=5, derandomize=True, deadline=None)
@given(shapes=SHAPES, seed=st.integers(0, 1000))
def test_step_follows_the_reference(
    row: Row, options: Options, dtype: Any, shapes: list[tuple[int, ...]], seed: int
) -> None:
    steps = 60
    params = drawn(shapes, dtype, seed)
    opt = row.make(params, **options)
    expected = [p.astype(np.float64) for p in params]
    states: list[dict[str, Any]] = [{} for _ in params]
    for t in range(1, steps + 1):
        grads = drawn(shapes, dtype, 1000 * seed + t)
        opt.step(grads)
        for i, g in enumerate(grads):
            expected[i] = reference.update(
                row.reference,
                expected[i],
                g.astype(np.float64),
                states[i],
                t,
                **reference_options(row, options),
            )
    for p, e in zip(params, expected, strict=True):
        scale = max(1.0, np.abs(e).max(initial=0.0))
        np.testing.assert_allclose(p, e, rtol=0, atol=tolerance(dtype, steps) * scale)


def test_every_compiled_rule_is_in_the_table() -> None:
    tested = set()
    for row in ROWS:
        for options in row.shared + row.own:
            opt = row.make([np.zeros(1)], **options)
            tested.add(opt.rule(opt.param_groups[0]))
    assert tested == set(_core.optimizer_rules())


# --- facts ---------------------------------------------------------------------------------------


def test_momentum_tends_to_a_step_of_lr_g_over_one_minus_mu() -> None:
    p, g = np.zeros(3), np.array([1.0, -2.0, 0.5])
    opt = SGD([p], lr=0.1, momentum=0.9)
    for _ in range(500):
        before = p.copy()
        opt.step([g])
    np.testing.assert_allclose(before - p, 0.1 / (1 - 0.9) * g, rtol=1e-10)


def test_descent_on_a_quadratic_is_best_at_1_over_h_and_diverges_above_2_over_h() -> None:
    def error(lr: float, steps: int, h: float = 4.0) -> float:
        p = np.array([1.0])
        opt = SGD([p], lr=lr)
        for _ in range(steps):
            opt.step([h * p])
        return abs(float(p[0]))

    assert error(1 / 4, steps=1) == 0
    assert error(0.99 * 2 / 4, steps=200) < 1 < error(1.01 * 2 / 4, steps=200)


def test_first_step_of_adam_is_lr_times_sign() -> None:
    p = np.zeros(3)
    Adam([p], lr=0.1).step([np.array([3.0, -1e-3, 1e4])])
    np.testing.assert_allclose(p, [-0.1, 0.1, -0.1], rtol=2e-5)


@pytest.mark.parametrize(("make", "lr"), [(LARS, 1.0), (LAMB, 0.01)])
def test_layerwise_step_does_not_see_the_gradient_s_scale(
    make: Callable[..., Optimizer], lr: float
) -> None:
    steps = []
    for scale in (1.0, 1024.0):
        p = drawn([(30, 7)], np.float64, 0)[0]
        before, opt = p.copy(), make([p], lr=lr, eps=0.0)
        opt.step([scale * drawn([(30, 7)], np.float64, 1)[0]])
        steps.append(p - before)
    np.testing.assert_allclose(steps[1], steps[0], rtol=1e-12)
    relative = np.linalg.norm(steps[0]) / np.linalg.norm(before)
    assert relative == pytest.approx({LARS: 1e-3, LAMB: 0.01}[make])


@pytest.mark.parametrize("make", [LARS, LAMB])
def test_layerwise_ratio_is_one_where_a_norm_is_zero(make: Callable[..., Optimizer]) -> None:
    zero, still = np.zeros(3), np.array([1.0, 2.0])
    opt = make([zero, still], lr=0.5)
    opt.step([np.array([1.0, -1.0, 1.0]), np.zeros(2)])
    np.testing.assert_allclose(zero, [-0.5, 0.5, -0.5], rtol=1e-5)
    np.testing.assert_array_equal(still, [1.0, 2.0])


def test_look_ahead_point_of_interim_equals_p_of_nesterov() -> None:
    p, q = np.ones(4), np.ones(4)
    nesterov = SGD([p], lr=0.1, momentum=0.8, nesterov=True)
    interim = SGD([q], lr=0.1, momentum=0.8, nesterov="interim")
    for _ in range(30):
        nesterov.step([np.arange(4) * p])
        interim.step([np.arange(4) * q])
        np.testing.assert_allclose(q, p, rtol=1e-13)


def test_interim_steps_back_to_the_iterate_of_the_textbook() -> None:
    lr, mu, h = 0.1, 0.8, np.arange(1.0, 5.0)
    p, v = np.ones(4), np.zeros(4)  # Goodfellow et al. 2016, Alg. 8.3, on ½ h p²
    q = np.ones(4)
    opt = SGD([q], lr=lr, momentum=mu, nesterov="interim")
    for _ in range(20):
        v = mu * v - lr * h * (p + mu * v)
        p = p + v
        opt.step([h * q])
    before = q.copy()
    with opt.at_iterate():
        np.testing.assert_allclose(q, p, rtol=1e-13)
    np.testing.assert_array_equal(q, before)
    opt.finalize()
    np.testing.assert_allclose(q, p, rtol=1e-13)
    finalized = q.copy()
    opt.finalize()
    np.testing.assert_array_equal(q, finalized)


def test_velocity_differs_from_the_default_once_lr_changes() -> None:
    results = []
    for form in ("buffer", "velocity"):
        p = np.zeros(2)
        opt = SGD([p], lr=0.1, momentum=0.5, momentum_form=form)
        opt.step([np.ones(2)])
        first = p.copy()
        opt.param_groups[0]["lr"] = 0.2
        opt.step([np.ones(2)])
        results.append((first, p))
    np.testing.assert_allclose(results[0][0], results[1][0])
    np.testing.assert_allclose(results[0][1], [-0.1 - 0.2 * 1.5] * 2)
    np.testing.assert_allclose(results[1][1], [-0.1 - (0.05 + 0.2)] * 2)


# --- forms of parameters and gradients -----------------------------------------------------------


def test_parameters_come_as_iterables_names_and_groups() -> None:
    a, b = np.zeros(2), np.zeros(3)
    ga, gb = np.ones(2), np.ones(3)
    forms: list[tuple[Any, Any]] = [
        ((p for p in [a, b]), [ga, gb]),
        ({"a": a, "b": b}, {"b": gb, "a": ga}),
        ([("a", a), ("b", b)], {"a": ga, "b": gb}),
        ([{"params": [a]}, {"params": b}], (ga, gb)),
        ([{"params": {"a": a}}, {"params": [("b", b)]}], {"a": ga, "b": gb}),
    ]
    for t, (params, grads) in enumerate(forms):
        SGD(params, lr=1.0).step(grads)
        np.testing.assert_array_equal(a, [-t - 1.0] * 2)
        np.testing.assert_array_equal(b, [-t - 1.0] * 3)


def test_groups_have_their_own_options_and_may_be_added() -> None:
    a, b, c = np.zeros(1), np.zeros(1), np.zeros(1)
    opt = SGD([{"params": [a]}, {"params": [b], "lr": 2.0}], lr=1.0)
    opt.step([np.ones(1), np.ones(1)])
    opt.add_param_group({"params": c, "lr": 3.0, "momentum": 0.5})
    opt.step([np.ones(1)] * 3)
    assert (a[0], b[0], c[0]) == (-2, -4, -3)
    for bad in ({"params": a}, {"params": c[:1]}, {"params": [np.ones(1)], "lr": -1}):
        with pytest.raises(ValueError):
            opt.add_param_group(bad)
    opt.step([np.ones(1)] * 3)
    assert (a[0], b[0], c[0]) == (-3, -6, -7.5)


def test_variant_of_a_rule_may_change_during_training() -> None:
    p = np.zeros(1)
    opt = SGD([p], lr=1.0)
    opt.step([np.ones(1)])
    opt.param_groups[0]["momentum"] = 0.5
    opt.step([np.ones(1)])
    opt.step([np.ones(1)])
    assert p[0] == -1 - 1 - 1.5


def test_tensors_bring_their_gradients_and_may_move() -> None:
    t = tw.tensor(np.ones(3), requires_grad=True)
    opt = SGD([t], lr=1.0)
    (t * t).sum().backward()
    opt.step()
    np.testing.assert_array_equal(t.data, [-1, -1, -1])
    opt.step(zero_grad=True)
    np.testing.assert_array_equal(t.data, [-3, -3, -3])
    assert not t.grad.data.any()
    old, t.data = t.data, np.full(3, 5.0)  # as an arena does
    assert opt.grad_norm([old]) == pytest.approx(np.sqrt(27))
    opt.step([np.ones(3)])
    np.testing.assert_array_equal(t.data, [4, 4, 4])
    np.testing.assert_array_equal(old, [-3, -3, -3])
    opt.zero_grad(set_to_none=False)
    assert t.grad is not None
    opt.zero_grad()
    assert t.grad is None
    opt.step()
    np.testing.assert_array_equal(t.data, [4, 4, 4])
    t.data = np.zeros(4)
    with pytest.raises(ValueError, match="was \\(3,\\) float64 and became \\(4,\\)"):
        opt.step()


@pytest.mark.parametrize(
    "module", ["rules", "sgd", "sign", "layerwise", "lr_scheduler", "measured"]
)
def test_examples_in_docstrings(module: str) -> None:
    result = doctest.testmod(
        importlib.import_module(f"thalweg.optim.{module}"), extraglobs={"np": np, "tw": tw}
    )
    assert result.attempted > 0
    assert result.failed == 0
