"""Optimizers against float64 references, and what must hold bit for bit."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import thalweg as tw
from optim_table import ROWS, Options, Row, reference_options, variants
from reference import optim as reference
from thalweg import _core
from thalweg.optim import SGD, Adam, Lion, Optimizer, RMSprop

Array = np.ndarray[Any, Any]
DTYPES = [np.float32, np.float64]
SHAPES = st.lists(st.lists(st.integers(0, 7), max_size=3).map(tuple), min_size=1, max_size=3)
every_variant = pytest.mark.parametrize(("row", "options"), variants())
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def drawn(shapes: Sequence[tuple[int, ...]], dtype: Any, seed: int) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


def trained(
    row: Row,
    options: Options,
    params: list[Array],
    steps: int = 4,
    seed: int = 1,
    **kwargs: Any,
) -> list[Array]:
    """`params` after some steps with drawn gradients."""
    opt = row.make(params, **options)
    for t in range(steps):
        grads = drawn([p.shape for p in params], params[0].dtype, seed + t)
        opt.step(grads, **kwargs)
    return params


def assert_same_bits(a: Sequence[Array], b: Sequence[Array]) -> None:
    for x, y in zip(a, b, strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y, strict=True)


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


# --- the answer does not depend on how the work was cut ------------------------------------------


@every_variant
@every_dtype
def test_step_is_independent_of_how_tensors_are_split(
    row: Row, options: Options, dtype: Any
) -> None:
    whole = drawn([(5000,)], dtype, 0)[0]
    parts = whole.copy()
    cuts = [0, 1, 18, 2049, 5000]
    pieces = [parts[a:b] for a, b in zip(cuts, cuts[1:], strict=False)]
    opt, split = row.make([whole], **options), row.make(pieces, **options)
    for t in range(4):
        g = drawn([(5000,)], dtype, t)[0]
        opt.step([g])
        split.step([g[a:b] for a, b in zip(cuts, cuts[1:], strict=False)])
    assert_same_bits([parts], [whole])


@every_variant
def test_step_is_independent_of_grouping(row: Row, options: Options) -> None:
    shapes = [(3, 5), (40,), (), (2, 2, 2)]
    one = trained(row, options, drawn(shapes, np.float64, 0))
    many = drawn(shapes, np.float64, 0)
    opt = row.make([{"params": [p]} for p in many], **options)
    for t in range(4):
        opt.step(drawn(shapes, np.float64, 1 + t))
    assert_same_bits(one, many)


@every_variant
@every_dtype
def test_step_is_independent_of_threads_and_isa(row: Row, options: Options, dtype: Any) -> None:
    shapes = [(70_001,), (33,), (300, 7)]
    expected = None
    for name in _core.available_isas():
        tw.use_isa(name)
        for count in (1, 2, 3):
            tw.set_num_threads(count)
            result = trained(row, options, drawn(shapes, dtype, 0), steps=2)
            expected = result if expected is None else expected
            assert_same_bits(result, expected)


@every_variant
@every_dtype
def test_stages_in_one_pass_equal_separate_steps(row: Row, options: Options, dtype: Any) -> None:
    """A scale that is a power of two: two multiplications then round as one does."""
    shapes, scale, max_norm, clip, decay, ema = [(40, 50), (7,)], 0.5, 9.0, 0.3, 0.01, 0.75
    plain = {**options, "weight_decay": decay}
    decoupled = options.get("decoupled") or options.get("decoupled_weight_decay")
    decoupled = decoupled or bool(row.fixed.get("decoupled"))
    if "weight_decay" not in row.make([np.zeros(1)], **options).defaults:
        plain.pop("weight_decay")
        decay = 0.0
    bare = {**plain, "weight_decay": 0.0} if decay else plain
    sign = dtype(-1 if options.get("maximize") else 1)

    fused = drawn(shapes, dtype, 0)
    separate = drawn(shapes, dtype, 0)
    average = drawn(shapes, dtype, 0)
    a = row.make(fused, **plain, max_norm=max_norm, clip_value=clip, ema_decay=ema)
    b = row.make(separate, **{**bare, "maximize": False})
    lr = b.param_groups[0]["lr"]
    for t in range(3):
        grads = drawn(shapes, dtype, t)
        norm = b.grad_norm(grads, scale)
        factor = dtype(scale * min(1.0, max_norm / (norm + 1e-6)))
        clipped = [sign * np.clip(factor * g, -dtype(clip), dtype(clip)) for g in grads]
        if decay and not decoupled:
            clipped = [g + dtype(decay) * p for g, p in zip(clipped, separate, strict=True)]
        if decoupled:
            for p in separate:
                p *= dtype(1 - lr * decay)
        b.step(clipped)
        for m, p in zip(average, separate, strict=True):
            m[...] = dtype(ema) * m + dtype(1 - ema) * p

        a.step(grads, grad_scale=scale, zero_grad=True)
        assert a.last_grad_norm == norm
        assert_same_bits(fused, separate)
        assert_same_bits(a.ema, average)
        assert all(not g.any() for g in grads)


@every_dtype
def test_gradient_sources_are_summed_in_order(dtype: Any) -> None:
    shapes = [(2000,), (3, 3)]
    sources = [drawn(shapes, dtype, seed) for seed in (1, 2, 3)]
    one, many = drawn(shapes, dtype, 0), drawn(shapes, dtype, 0)
    Adam(one, max_norm=1.0).step([(a + b) + c for a, b, c in zip(*sources, strict=True)])
    Adam(many, max_norm=1.0).step([list(triple) for triple in zip(*sources, strict=True)])
    assert_same_bits(many, one)


def test_one_optimizer_for_two_dtypes_equals_two_optimizers() -> None:
    together = [np.ones(5, np.float32), np.ones((2, 3)), np.ones(3, np.float32)]
    apart = copy.deepcopy(together)
    grads = [np.full_like(p, 0.3) for p in together]
    Adam(together).step(grads)
    Adam([apart[0], apart[2]]).step([grads[0], grads[2]])
    Adam([apart[1]]).step([grads[1]])
    assert_same_bits(together, apart)


@every_variant
def test_lr_scale_multiplies_the_rate_of_its_parameter(row: Row, options: Options) -> None:
    scaled, grouped = drawn([(5,), (6,)], np.float64, 0), drawn([(5,), (6,)], np.float64, 0)
    lr = row.make([np.zeros(1)], **options).param_groups[0]["lr"]
    a = row.make([{"params": scaled, "lr_scale": [2.0, 0.25]}], **options)
    b = row.make(
        [{"params": [grouped[0]], "lr": 2 * lr}, {"params": [grouped[1]], "lr": lr / 4}], **options
    )
    for t in range(3):
        grads = drawn([(5,), (6,)], np.float64, t)
        a.step(grads)
        b.step(grads)
    assert_same_bits(scaled, grouped)


def test_lr_scale_may_be_changed_later() -> None:
    p = np.zeros(2)
    opt = SGD([p], lr=1.0)
    opt.param_groups[0]["lr_scale"] = 0.5
    opt.step([np.ones(2)])
    np.testing.assert_array_equal(p, [-0.5, -0.5])


# --- None, state, averages -----------------------------------------------------------------------


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


# --- bad input -----------------------------------------------------------------------------------


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
    (lambda: Adam([np.zeros(3, np.int64)]), TypeError, "must be float32 or float64, got int64"),
    (lambda: Adam([np.zeros(3, ">f8")]), TypeError, "must be float32 or float64, got >f8"),
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
