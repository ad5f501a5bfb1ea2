"""Parameters of bfloat16 and float16: rounding, float32 masters, and what a step does with both."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import thalweg as tw
from optim_table import Array, Options, Row, assert_same_bits, drawn, every_variant
from thalweg import _core
from thalweg.optim import SGD, Adam, GradScaler

ml_dtypes = pytest.importorskip("ml_dtypes")
BF16: Any = np.dtype(ml_dtypes.bfloat16)
F16: Any = np.dtype(np.float16)
every_half = pytest.mark.parametrize("dtype", [BF16, F16], ids=str)
SHAPES = [(5, 3), (0,), (9000,), ()]


def every_float(step: int = 1009) -> Array:
    """Floats of every exponent, and the neighbourhoods of all ties of both formats."""
    ties = (np.arange(1 << 16, dtype=np.uint32) << 16)[:, None] + np.array(
        [0x7FFF, 0x8000, 0x8001, 0x0FFF, 0x1000, 0x1001, 0x2FFF, 0x3000, 0x3001], np.uint32
    )
    bits = np.concatenate([np.arange(0, 1 << 32, step, dtype=np.uint64), ties.ravel()])
    return bits.astype(np.uint32).view(np.float32)


@every_half
def test_parameters_round_as_ml_dtypes_and_numpy_do(dtype: Any) -> None:
    """p = 0 - 1*(-x): the master is x itself, the parameter x rounded."""
    x = every_float()
    for name in _core.available_isas():
        tw.use_isa(name)
        p = np.zeros(x.shape, dtype)
        SGD([p], lr=1.0).step([-x])
        with np.errstate(over="ignore", invalid="ignore"):
            expected = np.where(x == 0, np.float32(0), x).astype(dtype)
        nan = np.isnan(x)
        np.testing.assert_array_equal(p[~nan].view(np.uint16), expected[~nan].view(np.uint16))
        assert np.isnan(p[nan].astype(np.float32)).all()


@every_half
def test_gradients_widen_exactly(dtype: Any) -> None:
    g = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16).view(dtype)
    for name in _core.available_isas():
        tw.use_isa(name)
        p = np.ones(g.shape, dtype)
        opt = SGD([p], lr=1.0, momentum=0.9)
        opt.step([g])
        np.testing.assert_array_equal(
            opt.state_dict()["state"][0]["momentum_buffer"], g.astype(np.float32)
        )


@every_half
@every_variant
def test_master_takes_the_steps_of_a_float32_parameter(
    row: Row, options: Options, dtype: Any
) -> None:
    low = [p.astype(dtype) for p in drawn(SHAPES, np.float32, 0)]
    exact = [p.astype(np.float32) for p in low]
    opt = row.make(low, **options, max_norm=9.0, clip_value=0.4, ema_decay=0.9)
    plain = row.make(exact, **options, max_norm=9.0, clip_value=0.4, ema_decay=0.9)
    for t in range(4):
        grads = [g.astype(dtype) for g in drawn(SHAPES, np.float32, 1 + t)]
        wide = [g.astype(np.float32) for g in grads]
        plain.step(wide, grad_scale=0.3)
        opt.step(wide if t % 2 else grads, grad_scale=0.3, zero_grad=True)
        assert t % 2 or not any(g.astype(np.float32).any() for g in grads)
        assert opt.last_grad_norm == plain.last_grad_norm
        assert_same_bits(low, [p.astype(dtype) for p in exact])
    assert_same_bits(opt.ema, plain.ema)
    states = opt.state_dict()["state"]
    assert_same_bits([states[i]["master_param"] for i in states], exact)


@every_half
def test_step_is_independent_of_threads_and_isa(dtype: Any) -> None:
    shapes, expected = [(70_001,), (33,), (300, 7)], None
    for name in _core.available_isas():
        tw.use_isa(name)
        for count in (1, 2, 3):
            tw.set_num_threads(count)
            params = [p.astype(dtype) for p in drawn(shapes, np.float32, 0)]
            opt = Adam(params, lr=0.1, max_norm=1.0)
            for t in range(2):
                opt.step([[g.astype(dtype)] * 2 for g in drawn(shapes, np.float32, t)])
            expected = params if expected is None else expected
            assert_same_bits(params, expected)


@every_half
def test_master_follows_a_parameter_that_somebody_writes(dtype: Any) -> None:
    p = np.ones(3, dtype)
    opt = SGD([p], lr=2.0**-12)
    opt.step([np.ones(3, dtype)])
    np.testing.assert_array_equal(p, np.ones(3, dtype))  # too small a step for the parameter alone
    p[1] = 3
    opt.step([np.ones(3, dtype)])
    master = opt.state_dict()["state"][0]["master_param"]
    np.testing.assert_array_equal(master, [1 - 2.0**-11, 3 - 2.0**-12, 1 - 2.0**-11])


@every_half
def test_averages_are_float32_and_swapped_in_and_out(dtype: Any) -> None:
    p = np.ones(2, dtype)
    opt = SGD([p], lr=2.0**-12, ema_decay=0.5)
    for _ in range(2):
        opt.step([np.full(2, 2.0, np.float32)])
    before, average = copy.deepcopy((p, opt.state_dict())), opt.ema[0].copy()
    assert average.dtype == np.float32
    with opt.swap_ema():
        np.testing.assert_array_equal(p, average.astype(dtype))
    np.testing.assert_equal((p, opt.state_dict()), before)


@every_half
@every_variant
def test_copies_are_the_rounded_parameters(row: Row, options: Options, dtype: Any) -> None:
    params, expected = drawn(SHAPES, np.float32, 0), drawn(SHAPES, np.float32, 0)
    opt, plain = row.make(params, **options, copy_dtype=dtype.name), row.make(expected, **options)
    assert_same_bits(opt.copies, [p.astype(dtype) for p in params])
    for t in range(3):
        for optimizer in (opt, plain):
            optimizer.step(drawn(SHAPES, np.float32, t))
        params[0][0] *= 2
        expected[0][0] *= 2
        assert_same_bits(opt.copies[1:], [p.astype(dtype) for p in params[1:]])
    assert_same_bits(params, expected)


def test_copies_are_of_float32_parameters() -> None:
    with pytest.raises(TypeError, match=r"params\[0\] is float64; only float32 has a copy"):
        Adam([np.zeros(2)], copy_dtype="bfloat16")
    with pytest.raises(ValueError, match="copy_dtype must be one of None, 'bfloat16', 'float16'"):
        Adam([np.zeros(2, np.float32)], copy_dtype="int8")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="construct with copy_dtype"):
        Adam([np.zeros(2, np.float32)]).copies  # noqa: B018


@every_half
@every_variant
def test_state_dict_continues_bit_for_bit(row: Row, options: Options, dtype: Any) -> None:
    params = [p.astype(dtype) for p in drawn(SHAPES, np.float32, 0)]
    opt = row.make(params, **options)
    for t in range(3):
        opt.step(drawn(SHAPES, np.float32, t))
    state, moved = copy.deepcopy(opt.state_dict()), copy.deepcopy(params)
    other = row.make(moved, lr=77.0)
    other.load_state_dict(state)
    for t in range(3, 6):
        for optimizer in (opt, other):
            optimizer.step(drawn(SHAPES, np.float32, t))
    assert_same_bits(moved, params)
    np.testing.assert_equal(other.state_dict(), opt.state_dict())


def test_float16_training_recovers_from_overflow() -> None:
    """Least squares whose gradients vanish unscaled in float16 and overflow at the first scale."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 8)).astype(np.float32)
    w, target = np.zeros(8, np.float16), rng.standard_normal(8).astype(np.float32)
    opt, scaler = SGD([w], lr=3e6), GradScaler(init_scale=2.0**40, growth_interval=50)
    for _ in range(150):
        residual = 1e-7 * (x @ (w.astype(np.float32) - target))
        with np.errstate(over="ignore"):
            grad = scaler.scale(x.T @ residual / 64).astype(np.float16)
        scaler.step(opt, grads=[grad])
        scaler.update()
    assert scaler.skipped_steps >= 2
    np.testing.assert_allclose(w.astype(np.float32), target, atol=2e-3)


def test_wrong_dtypes_of_gradients_are_refused() -> None:
    opt = Adam([np.ones(2, BF16), np.ones(2, np.float32)])
    good = [np.ones(2, BF16), np.ones(2, np.float32)]
    for bad in (
        [np.ones(2, F16), good[1]],
        [np.ones(2), good[1]],
        [good[0], np.ones(2, BF16)],
        [[good[0], good[1]], good[1]],
    ):
        with pytest.raises(TypeError, match=r"optimizer: grads\[\d\] is"):
            opt.step(bad)
    opt.step(good)
    with pytest.raises(TypeError, match="got >f2"):
        Adam([np.ones(2, ">f2")])


def test_masters_are_checked() -> None:
    def add(param: Array, *masters: Any) -> None:
        steps = np.array([[0.0, 1, 1, 1]])
        _core.FusedOptimizer().add_group("sgd", [param], [], steps, None, None, *masters)

    half = np.ones(2, F16)
    with pytest.raises(ValueError, match="needs a float32 master"):
        add(half)
    with pytest.raises(ValueError, match="needs no master"):
        add(np.ones(2), [np.ones(2, np.float32)])
    with pytest.raises(TypeError, match=r"masters\[0\] must be float32"):
        add(half, [np.ones(2)])
    with pytest.raises(ValueError, match="shape"):
        add(half, [np.ones(3, np.float32)])
