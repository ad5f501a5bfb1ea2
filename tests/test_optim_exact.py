"""What holds bit for bit: the answer does not depend on how the work was cut."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import numpy as np

import thalweg as tw
from optim_table import (
    Options,
    Row,
    assert_same_bits,
    drawn,
    every_dtype,
    every_elementwise_variant,
    every_variant,
    trained,
)
from thalweg import _core
from thalweg.optim import SGD, Adam


@every_elementwise_variant
@every_dtype
def test_step_is_independent_of_how_tensors_are_split(
    row: Row, options: Options, dtype: Any
) -> None:
    whole = drawn([(5000,)], dtype, 0)[0]
    parts = whole.copy()
    cuts = [0, 1, 18, 2049, 5000]
    pieces = [parts[a:b] for a, b in pairwise(cuts)]
    opt, split = row.make([whole], **options), row.make(pieces, **options)
    for t in range(4):
        g = drawn([(5000,)], dtype, t)[0]
        opt.step([g])
        split.step([g[a:b] for a, b in pairwise(cuts)])
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


@every_dtype
def test_gradient_norm_is_independent_of_threads_and_isa(dtype: Any) -> None:
    shapes = [(70_001,), (33,), (300, 7)]
    grads, norms = drawn(shapes, dtype, 1), set()
    opt = SGD(drawn(shapes, dtype, 0), lr=0.1)
    for name in _core.available_isas():
        tw.use_isa(name)
        for count in (1, 2, 3):
            tw.set_num_threads(count)
            norms.add(opt.grad_norm(grads, 0.3))
    assert len(norms) == 1


@every_variant
@every_dtype
def test_stages_in_one_pass_equal_separate_steps(row: Row, options: Options, dtype: Any) -> None:
    """A scale that is a power of two: two multiplications then round as one does."""
    shapes, scale, max_norm, clip, decay, ema = [(40, 50), (7,)], 0.5, 9.0, 0.3, 0.01, 0.75
    plain = {**options, "weight_decay": decay}
    decoupled = options.get("decoupled") or options.get("decoupled_weight_decay")
    decoupled = decoupled or bool(row.fixed.get("decoupled"))
    if "weight_decay" not in row.make([np.zeros(1)], **options).defaults or row.layerwise:
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
