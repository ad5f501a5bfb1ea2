"""Optimizers refuse bad input by name, before anything is written."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from optim_table import (
    Array,
)
from thalweg.optim import SGD, Adam, Optimizer, RMSprop


def read_only() -> Array:
    p = np.zeros(3)
    p.flags.writeable = False
    return p


SHARED = np.zeros(6)
BAD_CONSTRUCTION: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: Adam([np.zeros(3)], betas=(1.5, 0.9)), ValueError,
     r"Adam: beta1 must be in \[0, 1\), got 1.5"),
    (lambda: Adam([np.zeros(3)], betas=(0.9, 1.0)), ValueError, r"Adam: beta2 must be in \[0, 1\)"),
    (lambda: Adam([np.zeros(3)], betas=0.9), TypeError, "betas must be a pair"),
    (lambda: Adam([np.zeros(3)], lr=math.nan), ValueError, r"lr must be in \[0, inf\), got nan"),
    (lambda: Adam([np.zeros(3)], lr="0.1"), TypeError, "lr must be a number, got '0.1'"),
    (lambda: Adam([np.zeros(3)], max_norm=0.0), ValueError, r"max_norm must be in \(0, inf\]"),
    (lambda: Adam([np.zeros(3)], clip_value=-1), ValueError, r"clip_value must be in \(0, inf\]"),
    (lambda: Adam([np.zeros(3)], ema_decay=1.0), ValueError, r"ema_decay must be in \[0, 1\)"),
    (lambda: RMSprop([np.zeros(3)], alpha=2), ValueError, r"RMSprop: alpha must be in \[0, 1\]"),
    (lambda: SGD([np.zeros(3)], 0.1, nesterov=True), ValueError, "nesterov needs momentum > 0"),
    (lambda: SGD([np.zeros(3)], 0.1, 0.9, 0.5, nesterov=True), ValueError, "dampening must be 0"),
    (lambda: SGD([np.zeros(3)], 0.1, 0.9, nesterov="look"), ValueError, "nesterov='look'"),
    (lambda: Adam([]), ValueError, "params is empty"),
    (lambda: Adam(np.zeros(3)), TypeError, r"write \[params\] for one"),
    (lambda: Adam({1.0, 2.0}), TypeError, "params must have an order, got a set"),
    (lambda: Adam(None), TypeError, "params must be an iterable, got NoneType"),
    (lambda: Adam([[1.0, 2.0]]), TypeError, "parameter 0 must be an array or a tensor, got list"),
    (lambda: Adam([np.zeros(3, np.int64)]), TypeError, "float32 or float64, .* got int64"),
    (lambda: Adam([np.zeros(3, ">f8")]), TypeError, "float32 or float64, .* got >f8"),
    (lambda: Adam([np.zeros(3), read_only()]), ValueError, r"params\[1\] is read-only"),
    (lambda: Adam([SHARED, SHARED]), ValueError, "parameter 1 was given already as parameter 0"),
    (lambda: Adam([{"params": SHARED}, {"params": SHARED}]), ValueError, "was given already"),
    (lambda: Adam([SHARED[:4], SHARED[3:]]), ValueError, r"params\[0\] and params\[1\] share"),
    (lambda: Adam([np.zeros((4, 4)).T[1:]]), ValueError, r"params\[0\] must be C-contiguous"),
    (lambda: Adam([np.broadcast_to(np.zeros(1), 3)]), ValueError, r"params\[0\]"),
    (lambda: Adam([("a", np.zeros(3)), ("a", np.zeros(3))]), ValueError, "name 1 was given"),
    (lambda: Adam([("a", np.zeros(3)), np.zeros(3)]), TypeError, "either all parameters"),
    (lambda: Adam([{"params": [np.zeros(3)], "lrr": 1}]), ValueError, "unknown option 'lrr'"),
    (lambda: Adam([{"params": [np.zeros(3)]}, np.zeros(3)]), TypeError, "parameter group is"),
    (lambda: Adam([{"params": [np.zeros(3)], "lr_scale": [1.0, 2.0]}]), ValueError,
     "lr_scale has 2 entries for 1 parameters"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "error", "message"), BAD_CONSTRUCTION)
def test_bad_construction_is_refused(
    make: Callable[[], Optimizer], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make()


BAD_STEPS: list[tuple[Callable[[list[Array]], Any], type[Exception], str]] = [
    (lambda g: None, ValueError, "plain arrays have no .grad; pass grads="),
    (lambda g: g[:1], ValueError, "expected 2 gradients, got 1"),
    (lambda g: [g[0], g[1][:1]], ValueError, "shape"),
    (lambda g: [g[0], g[1].astype(np.float32)], TypeError, "float32"),
    (lambda g: [g[0], g[1].tolist()], TypeError, "float"),
    (lambda g: {"a": g[0]}, ValueError, "differ in names"),
]


@pytest.mark.parametrize(("grads", "error", "message"), BAD_STEPS)
def test_bad_step_is_refused_and_changes_nothing(
    grads: Callable[[list[Array]], Any], error: type[Exception], message: str
) -> None:
    params = [np.ones(3), np.ones(2)]
    opt = Adam(params)
    opt.step([np.ones(3), np.ones(2)])
    before = copy.deepcopy((params, opt.state_dict()))
    with pytest.raises(error, match=message):
        opt.step(grads([np.ones(3), np.ones(2)]))
    np.testing.assert_equal((params, opt.state_dict()), before)


BAD_CHANGES: list[tuple[Callable[[Optimizer], Any], type[Exception], str]] = [
    (lambda opt: opt.param_groups[0].update(lr=-1.0), ValueError,
     r"Adam: lr must be in \[0, inf\), got -1"),
    (lambda opt: opt.param_groups[0].update(lr=math.nan), ValueError, "lr must be in .* got nan"),
    (lambda opt: opt.param_groups[1].update(lr=None), TypeError, "lr must be a number, got None"),
    (lambda opt: opt.param_groups[0].update(betas=[0.9, 1.0]), ValueError, "beta2 must be in"),
    (lambda opt: opt.param_groups[0]["betas"].append(0.5), TypeError, "betas must be a pair"),
    (lambda opt: opt.param_groups[0].update(lr_scale=[1.0, 2.0]), ValueError, "has 2 entries"),
    (lambda opt: setattr(opt, "max_norm", math.nan), ValueError, "max_norm must be in"),
    (lambda opt: setattr(opt, "clip_value", -1), ValueError, "clip_value must be in"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "error", "message"), BAD_CHANGES)
def test_option_changed_out_of_its_range_is_refused_by_the_step_and_changes_nothing(
    change: Callable[[Optimizer], Any], error: type[Exception], message: str
) -> None:
    params, grads = [np.ones(3), np.ones(2)], [np.ones(3), np.ones(2)]
    opt = Adam([{"params": params[:1]}, {"params": params[1:]}], betas=[0.9, 0.99])
    opt.step(grads)
    before = copy.deepcopy((params, opt.state_dict()["state"]))
    change(opt)
    for _ in range(2):
        with pytest.raises(error, match=message):
            opt.step(grads)
    np.testing.assert_equal((params, opt.state_dict()["state"]), before)


@pytest.mark.parametrize("scale", [math.nan, math.inf, "1"])
def test_bad_grad_scale_is_refused(scale: Any) -> None:
    params = [np.ones(3)]
    opt = Adam(params)
    with pytest.raises((ValueError, TypeError), match="Adam: grad_scale must be"):
        opt.step([np.ones(3)], grad_scale=scale)
    assert (params[0] == 1).all()
