"""Optimizers: absent gradients, state dictionaries, weight averages, norms."""

from __future__ import annotations

import copy
import json
import math
import pickle
from typing import Any

import numpy as np
import pytest

import thalweg as tw
from optim_table import (
    Options,
    Row,
    assert_same_bits,
    drawn,
    every_dtype,
    every_variant,
    trained,
)
from reference import optim as reference
from thalweg.optim import SGD, Adam, Lion


@every_variant
def test_parameter_without_gradient_is_left_alone(row: Row, options: Options) -> None:
    alone, skipped = drawn([(5,)], np.float64, 0), drawn([(5,), (4,)], np.float64, 0)
    untouched = skipped[1].copy()
    opt = row.make(skipped, **options)
    for t in range(3):
        opt.step([*drawn([(5,)], np.float64, 1 + t), None])
    trained(row, options, alone, steps=3)
    assert_same_bits(skipped, [alone[0], untouched])
    assert list(opt.state_dict()["state"]) == [0]


@every_variant
@every_dtype
def test_state_dict_continues_bit_for_bit(row: Row, options: Options, dtype: Any) -> None:
    shapes = [(5, 3), (17,)]
    params = drawn(shapes, dtype, 0)
    opt = row.make(params, **options, ema_decay=0.9)
    for t in range(5):
        opt.step(drawn(shapes, dtype, t))
    state, moved = copy.deepcopy(opt.state_dict()), copy.deepcopy(params)
    other = row.make(moved, lr=77.0, ema_decay=0.9)
    other.load_state_dict(state)
    for t in range(5, 10):
        opt.step(drawn(shapes, dtype, t))
        other.step(drawn(shapes, dtype, t))
    assert_same_bits(moved, params)
    assert_same_bits(other.ema, opt.ema)


@every_variant
@pytest.mark.parametrize("pickled", [False, True])
def test_a_copy_continues_bit_for_bit_and_by_itself(
    row: Row, options: Options, pickled: bool
) -> None:
    shapes = [(5, 3), (17,)]
    params = drawn(shapes, np.float32, 0)
    opt = row.make(params, **options, ema_decay=0.9)
    for t in range(3):
        opt.step(drawn(shapes, np.float32, t))
    other = pickle.loads(pickle.dumps(opt)) if pickled else copy.deepcopy(opt)
    before = copy.deepcopy(params)
    for t in range(3, 6):
        other.step(drawn(shapes, np.float32, t))
    assert_same_bits(params, before)
    for t in range(3, 6):
        opt.step(drawn(shapes, np.float32, t))
    assert_same_bits(other.param_groups[0]["params"], params)
    assert_same_bits(other.ema, opt.ema)


@pytest.mark.parametrize("options", [{"state_dtype": "int8"}, {"copy_dtype": "float16"}, {}])
def test_a_model_and_its_optimizer_are_copied_together(options: Options) -> None:
    def step(model: Any, opt: Any) -> None:
        model(tw.ones(2, 5)).square().mean().backward()
        opt.step(zero_grad=True)

    tw.manual_seed(0)
    model = tw.nn.Linear(5, 3)
    opt = Adam([{"params": [model.weight], "lr": 0.1}, {"params": [model.bias]}], **options)
    step(model, opt)
    twin, twins_opt = copy.deepcopy((model, opt))
    assert twins_opt.param_groups[0]["params"][0] is twin.weight
    step(model, opt)
    step(twin, twins_opt)
    assert_same_bits([p.data for p in twin.parameters()], [p.data for p in model.parameters()])


def test_a_copy_keeps_what_was_set_and_loaded() -> None:
    p = np.ones(3, np.float32)
    opt = SGD([p], lr=0.1, momentum=0.9)
    saved = opt.state_dict()
    saved["param_groups"][0]["foreach"] = None  # an option of PyTorch's alone
    opt.load_state_dict(saved)
    opt.param_groups[0]["lr"], opt.max_norm = 0.25, 3.0
    other = copy.deepcopy(opt)
    assert (other.param_groups[0]["lr"], other.max_norm, other.defaults["lr"]) == (0.25, 3.0, 0.1)


def test_loading_a_fresh_state_starts_anew() -> None:
    first = [np.ones(3)]
    opt = Adam(first)
    fresh = copy.deepcopy(opt.state_dict())
    opt.step([np.ones(3)])
    first[0][...] = 1
    opt.load_state_dict(fresh)
    opt.step([np.full(3, 0.5)])
    second = [np.ones(3)]
    Adam(second).step([np.full(3, 0.5)])
    assert_same_bits(first, second)


def test_state_survives_json() -> None:
    """Tuples come back as lists, numbers exactly: a checkpoint keeps options that way."""
    p, q = np.ones(2), np.ones(2)
    opt = Adam([{"params": [p], "lr_scale": [0.5]}])
    opt.step([np.ones(2)])
    groups = json.loads(json.dumps([{**group, "params": [0]} for group in opt.param_groups]))
    other = Adam([q])
    q[...] = p
    other.load_state_dict({**opt.state_dict(), "param_groups": groups})
    opt.step([np.ones(2)])
    other.step([np.ones(2)])
    assert_same_bits([q], [p])


def test_state_that_does_not_fit_changes_nothing() -> None:
    p = np.ones(3)
    opt = Adam([p])
    opt.step([np.ones(3)])
    before = copy.deepcopy(opt.state_dict())
    other = Adam([np.ones(4)])
    other.step([np.ones(4)])
    bad_options = copy.deepcopy(before)
    bad_options["param_groups"][0]["betas"] = (2.0, 0.9)
    lacking = copy.deepcopy(before)
    del lacking["state"][0]["exp_avg"]
    for state in (
        other.state_dict(),
        Lion([p]).state_dict() | {"state": {0: {"x": 1}}},
        bad_options,
        lacking,
        {},
    ):
        with pytest.raises(ValueError):
            opt.load_state_dict(state)
        np.testing.assert_equal(opt.state_dict(), before)


def test_average_weights_are_swapped_in_and_out() -> None:
    p = np.array([1.0, 2.0])
    opt = SGD([p], lr=0.5, ema_decay=0.5)
    opt.step([np.ones(2)])
    np.testing.assert_array_equal(opt.ema[0], [0.75, 1.75])
    with opt.swap_ema():
        np.testing.assert_array_equal(p, [0.75, 1.75])
    np.testing.assert_array_equal(p, [0.5, 1.5])
    with pytest.raises(ZeroDivisionError), opt.swap_ema():
        raise ZeroDivisionError
    np.testing.assert_array_equal(p, [0.5, 1.5])


def test_averages_start_at_the_parameters_of_the_first_step() -> None:
    p = np.zeros(2)
    opt = SGD([p], lr=1.0, ema_decay=0.5)
    np.testing.assert_array_equal(opt.ema[0], [0, 0])
    p[...] = 4  # as when parameters are loaded after the optimizer was made
    opt.step([np.ones(2)])
    np.testing.assert_array_equal(opt.ema[0], [3.5, 3.5])


def test_gradient_norm_stops_training() -> None:
    p = np.array([3.0, 4.0])
    opt = SGD([p], lr=0.5, max_norm=math.inf)
    with pytest.raises(RuntimeError, match="no gradient norm"):
        opt.converged(1.0)
    steps = 0
    while steps == 0 or not opt.converged(1e-3):
        opt.step([p.copy()])
        steps += 1
    assert opt.last_grad_norm == pytest.approx(5 * 0.5 ** (steps - 1))
    assert steps == 14


def test_clipping_shrinks_all_gradients_to_the_norm_together() -> None:
    params = [np.zeros(2), np.zeros(1, np.float32)]
    opt = SGD(params, lr=1.0, max_norm=1.0)
    grads = [np.array([3.0, 0.0]), np.array([4.0], np.float32)]
    opt.step(grads)
    assert opt.last_grad_norm == 5.0
    for p, e in zip(params, reference.clip_by_norm(grads, 1.0), strict=True):
        np.testing.assert_allclose(-p, e, rtol=1e-6)
