"""Inf and NaN in gradients: steps that are skipped or refused, and dynamic loss scaling."""

from __future__ import annotations

import copy
import doctest
from typing import Any

import numpy as np
import pytest

import thalweg as tw
from optim_table import (
    Array,
    Options,
    Row,
    assert_same_bits,
    drawn,
    every_dtype,
    every_variant,
)
from thalweg import optim
from thalweg.optim import SGD, Adam, GradScaler

SHAPES = [(5, 3), (0,), (9000,)]
BAD = [np.nan, np.inf, -np.inf]


def with_bad(grads: list[Array], value: float) -> list[Array]:
    grads[2][8191] = value
    return grads


@every_variant
@every_dtype
def test_skipped_step_leaves_everything_bit_for_bit(row: Row, options: Options, dtype: Any) -> None:
    """The skipping optimizer sees bad gradients before every good one, the other only good ones."""
    params, expected = drawn(SHAPES, dtype, 0), drawn(SHAPES, dtype, 0)
    opt = row.make(params, **options, nonfinite="skip", ema_decay=0.9)
    plain = row.make(expected, **options, ema_decay=0.9)
    for t, bad in enumerate(BAD):
        before = copy.deepcopy((params, opt.state_dict()))
        opt.step(with_bad(drawn(SHAPES, dtype, t), bad))
        np.testing.assert_equal((params, opt.state_dict()), before)
        assert opt.skipped_steps == t + 1
        for optimizer in (opt, plain):
            optimizer.step(drawn(SHAPES, dtype, t))
        assert_same_bits([*params, *opt.ema], [*expected, *plain.ema])
    assert plain.skipped_steps == 0


@pytest.mark.parametrize("bad", BAD)
def test_raising_step_names_the_parameter_and_changes_nothing(bad: float) -> None:
    params = dict(zip("abc", drawn(SHAPES, np.float32, 0), strict=True))
    opt = Adam(params, nonfinite="raise")
    grads = with_bad(drawn(SHAPES, np.float32, 1), bad)
    before = copy.deepcopy((params, opt.state_dict(), grads))
    with pytest.raises(FloatingPointError, match=r"Adam: Inf or NaN .* parameter 2 \(c\)"):
        opt.step(dict(zip("abc", grads, strict=True)), zero_grad=True)
    np.testing.assert_equal((params, opt.state_dict(), grads), before)


def test_nan_goes_through_by_default() -> None:
    p = np.zeros(2)
    SGD([p], lr=1.0).step([np.array([1.0, np.nan])])
    np.testing.assert_array_equal(p, [-1.0, np.nan])


def test_gradients_of_a_skipped_step_are_zeroed_where_asked() -> None:
    g = np.array([np.nan, 1.0])
    opt = SGD([np.zeros(2)], lr=1.0, nonfinite="skip")
    opt.step([g])
    assert np.isnan(g[0])
    opt.step([g], zero_grad=True)
    assert not g.any()
    assert opt.skipped_steps == 2


def test_large_gradients_are_finite_and_their_sum_may_not_be() -> None:
    """1e300² overflows in the norm; 3e38 + 3e38 overflows in the sum of sources."""
    p, q = np.zeros(1), np.zeros(1, np.float32)
    opt = SGD([p, q], lr=1.0, nonfinite="skip")
    opt.step([np.array([1e300]), np.array([3e38], np.float32)])
    assert (p[0], q[0], opt.skipped_steps) == (-1e300, np.float32(-3e38), 0)
    opt.step([np.zeros(1), [np.array([3e38], np.float32)] * 2])
    assert (p[0], q[0], opt.skipped_steps) == (-1e300, np.float32(-3e38), 1)


def test_unknown_policy_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Adam: nonfinite must be one of 'propagate'.*got 'stop'"):
        Adam([np.zeros(1)], nonfinite="stop")  # type: ignore[arg-type]


# --- loss scaling --------------------------------------------------------------------------------


def test_scale_halves_at_infinities_and_recovers() -> None:
    p = np.zeros(1)
    opt, scaler = SGD([p], lr=1.0), GradScaler(growth_interval=3)
    scales = []
    for g in (np.inf, np.nan, 1.0, 1.0, 1.0, 1.0):
        taken = scaler.step(opt, grads=[np.array([scaler.scale(g)])])
        assert taken == np.isfinite(g)
        scaler.update()
        scales.append(scaler.get_scale())
    assert scales == [2.0**15, 2.0**14, 2.0**14, 2.0**14, 2.0**15, 2.0**15]
    assert p[0] == -4
    assert (scaler.skipped_steps, opt.skipped_steps, opt.nonfinite) == (2, 2, "propagate")


def test_scaled_steps_equal_unscaled_steps() -> None:
    """A power of two changes no bit, and clipping sees the unscaled gradients."""
    x = tw.tensor(np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3))
    results = []
    for scaler in (GradScaler(), GradScaler(enabled=False)):
        w = tw.tensor(np.ones((3, 2), np.float32), requires_grad=True)
        opt = Adam([w], lr=0.1, max_norm=0.1)
        for _ in range(5):
            opt.zero_grad()
            scaler.scale((x @ w).square().mean()).backward()
            scaler.step(opt, grad_scale=0.5)
            scaler.update()
        results.append(w.data)
    assert_same_bits(results[:1], results[1:])


def test_scaler_continues_from_its_state() -> None:
    scaler, other = GradScaler(growth_interval=2), GradScaler()
    opt = SGD([np.zeros(1)], lr=1.0)
    for g in (np.inf, 1.0):
        scaler.step(opt, grads=[np.array([g])])
        scaler.update()
    other.load_state_dict(scaler.state_dict())
    assert other.state_dict() == scaler.state_dict()
    for one in (scaler, other):
        one.step(opt, grads=[np.zeros(1)])
        one.update()
        assert one.get_scale() == 65536.0
    state = scaler.state_dict()
    for bad in ({}, state | {"scale": 0.0}, state | {"growth_interval": 0}):
        with pytest.raises(ValueError, match="GradScaler"):
            other.load_state_dict(bad)
        assert other.state_dict() == scaler.state_dict()


def test_update_needs_a_step() -> None:
    with pytest.raises(RuntimeError, match="call step"):
        GradScaler().update()
    with pytest.raises(ValueError, match=r"backoff_factor must be in \(0, 1\)"):
        GradScaler(backoff_factor=2.0)


def test_example_in_the_docstring() -> None:
    result = doctest.testmod(optim.grad_scaler, extraglobs={"np": np, "tw": tw})
    assert (result.attempted, result.failed) == (4, 0)


@pytest.mark.torch
def test_scale_follows_torch() -> None:
    torch = pytest.importorskip("torch")
    theirs = torch.amp.GradScaler("cpu", growth_interval=3)
    ours = GradScaler(growth_interval=3)
    tensor, array = torch.zeros(1), np.zeros(1, np.float32)
    torch_opt, opt = torch.optim.SGD([tensor], lr=1.0), SGD([array], lr=1.0)
    rng = np.random.default_rng(0)
    for _ in range(60):
        g = float(rng.choice([1.0, 0.5, np.inf, -2.0]))
        tensor.grad = theirs.scale(torch.full((1,), g))
        theirs.step(torch_opt)
        theirs.update()
        ours.step(opt, grads=[np.array([ours.scale(g)], np.float32)])
        ours.update()
        assert ours.get_scale() == theirs.get_scale()
        assert array[0] == tensor.item()
    ours.load_state_dict(theirs.state_dict())
    assert ours.get_scale() == theirs.get_scale()
