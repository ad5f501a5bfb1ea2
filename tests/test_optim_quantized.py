"""States of 8 bits: the map, the pass through it in every step, and what training loses by it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import thalweg as tw
from optim_table import Array, Options, assert_same_bits, drawn
from reference.quantize import BLOCK, blocks, dynamic_map, spacing
from thalweg import _core
from thalweg.optim import SGD, Adagrad, Adam, Adamax, AdamW, Lion, Optimizer, RMSprop

# (optimizer, options, its states without a sign)
VARIANTS: list[tuple[type[Optimizer], Options, set[str]]] = [
    (SGD, {"lr": 0.1}, set()),
    (SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}, set()),
    (SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}, set()),
    (Adagrad, {"lr": 0.1, "initial_accumulator_value": 0.5}, {"sum"}),
    (RMSprop, {}, {"square_avg"}),
    (RMSprop, {"centered": True, "momentum": 0.9, "alpha": 0.9}, {"square_avg"}),
    (Adam, {"lr": 0.01}, {"exp_avg_sq"}),
    (Adam, {"amsgrad": True}, {"exp_avg_sq", "max_exp_avg_sq"}),
    (AdamW, {"weight_decay": 0.1}, {"exp_avg_sq"}),
    (Lion, {"weight_decay": 0.1}, set()),
]
every_quantized = pytest.mark.parametrize(
    ("make", "options", "nonnegative"),
    VARIANTS,
    ids=[f"{make.__name__}-{options}" for make, options, _ in VARIANTS],  # sets have no order
)
SHAPES = [(5, 3), (0,), (9000,), (256,), ()]


def signed_values(codes: Array) -> Array:
    """The values of codes of a momentum buffer: v = 0.5*v ; p -= 2*v leaves p = -v."""
    p = np.zeros(codes.shape, np.float32)
    opt = SGD([p], lr=2.0, momentum=0.5, state_dtype="int8")
    opt.step([p.copy()])
    state = opt.state_dict()
    state["state"][0]["momentum_buffer"] = codes
    state["state"][0]["momentum_buffer_absmax"] = np.ones(-(-codes.size // BLOCK), np.float32)
    p[...] = 0
    opt.load_state_dict(state)
    opt.step([np.zeros(codes.shape, np.float32)])
    return -p.astype(np.float64)


def unsigned_values(codes: Array) -> Array:
    """The values of codes of a mean square that alpha = 1 holds: p = -1/sqrt(r)."""
    p = np.zeros(codes.shape, np.float32)
    opt = RMSprop([p], lr=1.0, alpha=1.0, eps=0.0, state_dtype="int8")
    opt.step([p.copy() + 1])
    state = opt.state_dict()
    state["state"][0]["square_avg"] = codes
    state["state"][0]["square_avg_absmax"] = np.ones(-(-codes.size // BLOCK), np.float32)
    p[...] = 0
    opt.load_state_dict(state)
    opt.step([np.ones(codes.shape, np.float32)])
    assert np.array_equal(opt.state_dict()["state"][0]["square_avg"], codes)
    return p.astype(np.float64) ** -2


ALL_CODES = np.arange(256, dtype=np.uint8)


@pytest.mark.parametrize(("values", "signed"), [(signed_values, True), (unsigned_values, False)])
def test_map_is_the_dynamic_map(values: Any, signed: bool) -> None:
    with np.errstate(divide="ignore"):
        ours = np.sort(values(ALL_CODES))
    np.testing.assert_allclose(ours, dynamic_map(signed), rtol=2e-6, atol=1e-12)


def dequantized(entry: dict[str, Array], name: str, nonnegative: set[str]) -> Array:
    table = (unsigned_values if name in nonnegative else signed_values)(ALL_CODES)
    x = table[entry[name]].reshape(-1)
    for absmax, block in zip(entry[name + "_absmax"], blocks(x), strict=True):
        x[block] *= absmax
    return x.reshape(entry[name].shape)


@pytest.mark.filterwarnings("ignore:divide by zero")
@every_quantized
def test_step_is_the_float_step_from_states_of_8_bits(
    make: type[Optimizer], options: Options, nonnegative: set[str]
) -> None:
    """One step from the dequantised states, in float64; then states lie in their codes' gaps."""
    params = drawn(SHAPES, np.float32, 0)
    opt = make(params, **options, state_dtype="int8")
    for t in range(4):
        exact = [p.astype(np.float64) for p in params]
        other = make(exact, **options)
        state = copy.deepcopy(opt.state_dict())
        for entry in state["state"].values():
            for name in [n for n in entry if n + "_absmax" in entry]:
                entry[name] = dequantized(entry, name, nonnegative)
                del entry[name + "_absmax"]
        other.load_state_dict(state)
        grads = drawn(SHAPES, np.float32, 10 + t)
        opt.step(grads)
        other.step([g.astype(np.float64) for g in grads])
        for p, e in zip(params, exact, strict=True):
            np.testing.assert_allclose(p, e, rtol=2e-5, atol=1e-6)
        wanted = other.state_dict()["state"]
        for i, entry in opt.state_dict()["state"].items():
            for name in [n for n in entry if n + "_absmax" in entry]:
                signed, got = name not in nonnegative, dequantized(entry, name, nonnegative)
                for absmax, block in zip(entry[name + "_absmax"], blocks(got), strict=True):
                    want = wanted[i][name].reshape(-1)[block]
                    np.testing.assert_allclose(absmax, np.abs(want).max(), rtol=1e-5)
                    fraction = want / np.abs(want).max()
                    room = spacing(fraction, signed) * (1 + 1e-4) + 2e-5 * np.abs(fraction)
                    error = np.abs(got.reshape(-1)[block] / absmax - fraction)
                    assert (error <= room).all(), name
                    assert signed or ((got.reshape(-1)[block] > 0) == (want > 0)).all()


@every_quantized
def test_step_is_independent_of_threads_and_isa(
    make: type[Optimizer], options: Options, nonnegative: set[str]
) -> None:
    shapes, expected = [(70_001,), (33,), (300, 7)], None
    for name in _core.available_isas():
        tw.use_isa(name)
        for count in (1, 2, 3):
            tw.set_num_threads(count)
            params = drawn(shapes, np.float32, 0)
            opt = make(params, **options, state_dtype="int8", max_norm=3.0)
            for t in range(3):
                opt.step(drawn(shapes, np.float32, t))
            states = opt.state_dict()["state"]
            result = [*params, *(s for e in states.values() for s in e.values())]
            expected = result if expected is None else expected
            np.testing.assert_equal(result, expected)


@every_quantized
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_state_dict_continues_bit_for_bit(
    make: type[Optimizer], options: Options, nonnegative: set[str], dtype: str
) -> None:
    params = [p.astype(dtype) for p in drawn(SHAPES, np.float32, 0)]
    opt = make(params, **options, state_dtype="int8", nonfinite="skip")
    for t in range(3):
        opt.step(drawn(SHAPES, np.dtype(dtype), t))
    state, moved = copy.deepcopy(opt.state_dict()), copy.deepcopy(params)
    bad = drawn(SHAPES, np.dtype(dtype), 0)
    bad[2][7] = np.inf
    opt.step(bad)
    np.testing.assert_equal((opt.state_dict(), params, opt.skipped_steps), (state, moved, 1))
    other = make(moved, lr=77.0, state_dtype="int8")
    other.load_state_dict(state)
    for t in range(3, 6):
        for optimizer in (opt, other):
            optimizer.step(drawn(SHAPES, np.dtype(dtype), t))
    assert_same_bits(moved, params)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_states_go_through_a_file_exactly(tmp_path: Path, dtype: str) -> None:
    params = [p.astype(dtype) for p in drawn(SHAPES, np.float32, 0)]
    opt = Adam(params, state_dtype="int8")
    opt.step(drawn(SHAPES, np.dtype(dtype), 1))
    tw.save(tmp_path / "state", optimizer=opt)
    other = Adam(copy.deepcopy(params), state_dtype="int8")
    tw.load(tmp_path / "state", optimizer=other)
    np.testing.assert_equal(other.state_dict()["state"], opt.state_dict()["state"])


def test_arrays_of_8_bit_states_are_checked() -> None:
    def add(codes: Array, absmax: Array) -> None:
        param, steps = np.ones(300, np.float32), np.array([[0.0, 1, 1, 1]])
        native = _core.FusedOptimizer()
        native.add_group("lion", [param], [[codes]], steps, None, None, None, [[absmax]])

    codes, absmax = np.zeros(300, np.uint8), np.zeros(2, np.float32)
    add(codes, absmax)
    memory = np.zeros(512, np.uint8)
    for bad, error, message in (
        ((codes.astype(np.float32), absmax), TypeError, r"exp_avg\[0\] must be uint8 with float32"),
        ((codes, absmax.astype(np.float64)), TypeError, r"exp_avg\[0\] must be uint8 with float32"),
        ((codes[:299], absmax), ValueError, "shape"),
        ((codes, absmax[:1]), ValueError, r"absmax of exp_avg\[0\] must have shape \(2,\)"),
        ((np.zeros(600, np.uint8)[::2], absmax), ValueError, "must be C-contiguous"),
        ((memory[:300], memory[256:264].view(np.float32)), ValueError, "share memory"),
    ):
        with pytest.raises(error, match=message):
            add(*bad)


def test_states_take_two_bytes_of_adam() -> None:
    opt = Adam([np.zeros(100_000, np.float32)], state_dtype="int8")
    opt.step([np.ones(100_000, np.float32)])
    entry = opt.state_dict()["state"][0]
    arrays = [value for value in entry.values() if isinstance(value, np.ndarray)]
    assert sum(a.nbytes for a in arrays) <= 2.04 * 100_000


def test_nan_in_a_state_stays_in_its_block() -> None:
    p = np.zeros(600, np.float32)
    opt = SGD([p], lr=1.0, momentum=0.5, state_dtype="int8")
    g = np.ones(600, np.float32)
    g[300] = np.nan
    opt.step([g])
    opt.step([np.ones(600, np.float32)])
    assert np.isnan(p[256:512]).all()
    assert not np.isnan(p[:256]).any() and not np.isnan(p[512:]).any()


def test_bad_use_is_refused() -> None:
    with pytest.raises(ValueError, match="rule 'adamax' has no states of 8 bits"):
        Adamax([np.zeros(3, np.float32)], state_dtype="int8")
    with pytest.raises(
        TypeError, match=r"params\[0\] is float64; states of 8 bits are for float32"
    ):
        Adam([np.zeros(3)], state_dtype="int8")
    with pytest.raises(
        ValueError, match="Adam: state_dtype must be one of None, 'int8', got 'int4'"
    ):
        Adam([np.zeros(3, np.float32)], state_dtype="int4")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="nesterov='interim' steps back by its momentum"):
        SGD([np.zeros(3, np.float32)], 0.1, 0.9, nesterov="interim", state_dtype="int8")
    p = [np.ones(3, np.float32)]
    opt, plain = Adam(p, state_dtype="int8"), Adam([np.ones(3, np.float32)])
    for optimizer in (opt, plain):
        optimizer.step([np.ones(3, np.float32)])
    for optimizer, other in ((opt, plain), (plain, opt)):
        before = copy.deepcopy(optimizer.state_dict())
        with pytest.raises(ValueError, match="expected states"):
            optimizer.load_state_dict(other.state_dict())
        np.testing.assert_equal(optimizer.state_dict(), before)
