"""Optimizer steps: memory-bound (one large tensor), threaded (100 x 100 K), in cache (1000 x 1 K),
and the parameters of a small network for CIFAR-10.

PyTorch runs with fused=True where the rule has it, else foreach=True; JAX with donated buffers.
Bytes per parameter: parameter read and written, gradient read, each state read and written.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from case import Array, Case, Side, Work
from measure import Record, Run, compare

SEED = 0
MAX_NORM = 1.0

CIFAR = [(100, 3072), (100,), (100,), (100,), (10, 100), (10,)]  # 3072-100-10 with BatchNorm
SIZES = {
    "1x32M": [(32_000_000,)],
    "100x100K": [(100_000,)] * 100,
    "1000x1K": [(1000,)] * 1000,
    "CIFAR MLP": CIFAR,
}
QUICK_SIZES = {"1x8M": [(8_000_000,)], "1000x1K": SIZES["1000x1K"], "CIFAR MLP": CIFAR}
SHOWN = 10_000  # elements of each tensor that are compared


@dataclass(frozen=True)
class Rule:
    """`name` is the class in both packages; `states` arrays a parameter; `fused` as in torch."""

    name: str
    states: int
    fused: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        options = [k if v is True else f"{k} {v}" for k, v in self.options.items() if k != "lr"]
        return " ".join([self.name, *options])


RULES = [
    Rule("SGD", 0, fused=True, options={"lr": 1e-3}),
    Rule("SGD", 1, fused=True, options={"lr": 1e-3, "momentum": 0.9}),
    Rule("SGD", 1, fused=True, options={"lr": 1e-3, "momentum": 0.9, "nesterov": True}),
    Rule("Adagrad", 1, fused=True),
    Rule("Adadelta", 2),
    Rule("RMSprop", 1),
    Rule("RMSprop", 3, options={"centered": True, "momentum": 0.9}),
    Rule("Rprop", 2),
    Rule("Adam", 2, fused=True),
    Rule("Adam", 3, fused=True, options={"amsgrad": True}),
    Rule("AdamW", 2, fused=True),
    Rule("Adamax", 2),
    Rule("NAdam", 2),
    Rule("RAdam", 2),
]
QUICK_RULES = [RULES[1], RULES[5], RULES[8], RULES[12]]
ADAM = RULES[8]


@dataclass(frozen=True)
class Pipeline:
    """What surrounds the rule in a training loop."""

    clip: bool = False
    zero: bool = False

    @property
    def label(self) -> str:
        return "clip + " * self.clip + "{}" + " + zero" * self.zero

    @property
    def passes(self) -> int:
        """Reads and writes of the gradient beyond the rule's own read: norm, zeroing."""
        return self.clip + self.zero


ALONE = Pipeline()
PIPELINES = [Pipeline(zero=True), Pipeline(clip=True), Pipeline(clip=True, zero=True)]
Shapes = list[tuple[int, ...]]


def records(run: Run) -> Iterator[Record]:
    return compare("optim", cases(run.quick), run)


def cases(quick: bool) -> Iterator[Case]:
    rules = QUICK_RULES if quick else RULES
    plan = [(rule, ALONE) for rule in rules] + [(ADAM, pipeline) for pipeline in PIPELINES]
    for size, shapes in (QUICK_SIZES if quick else SIZES).items():
        for rule, pipeline in plan:
            yield _case(f"{pipeline.label.format(rule.label)} {size}", rule, pipeline, shapes)


def _case(name: str, rule: Rule, pipeline: Pipeline, shapes: Shapes) -> Case:
    peer = "torch fused" if rule.fused else "torch foreach"
    sides: dict[str, Callable[[Rule, Pipeline, Shapes], Side]] = {"thalweg": _ours, peer: _torch}
    if rule == ADAM and len(shapes) <= 100:  # a thousand arguments take JAX minutes to compile
        sides["jax"] = _jax_adam
    elements = sum(math.prod(shape) for shape in shapes)
    work = Work(
        bytes=4.0 * elements * (3 + 2 * rule.states + pipeline.passes),
        footprint=4.0 * elements * (2 + rule.states),
    )
    made = {impl: functools.partial(side, rule, pipeline, shapes) for impl, side in sides.items()}
    return Case(name, made, 1e-5, work)


def _arrays(shapes: Shapes, seed: int) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape, np.float32) for shape in shapes]


def _side(call: Callable[[], object], params: list[Array], grads: list[Array], zero: bool) -> Side:
    """Gradients that the call zeroes are drawn again before the next one."""
    slope = _arrays([g.shape for g in grads], SEED + 1) if zero else []

    def restore() -> None:
        for grad, values in zip(grads, slope, strict=True):
            np.copyto(grad, values)

    def answer() -> list[Array]:
        shown = [array.ravel()[:SHOWN] for array in (*params, *(grads if zero else []))]
        return [np.concatenate(shown)]

    return Side(call, answer, restore if zero else None)


def _ours(rule: Rule, pipeline: Pipeline, shapes: Shapes) -> Side:
    import thalweg as tw

    params, grads = _arrays(shapes, SEED), _arrays(shapes, SEED + 1)
    options = rule.options | ({"max_norm": MAX_NORM} if pipeline.clip else {})
    optimizer = getattr(tw.optim, rule.name)(params, **options)
    return _side(
        lambda: optimizer.step(grads, zero_grad=pipeline.zero), params, grads, pipeline.zero
    )


def _torch(rule: Rule, pipeline: Pipeline, shapes: Shapes) -> Side:
    import torch

    params = [torch.nn.Parameter(torch.from_numpy(x)) for x in _arrays(shapes, SEED)]
    for param, values in zip(params, _arrays(shapes, SEED + 1), strict=True):
        param.grad = torch.from_numpy(values)
    implementation = {"fused": True} if rule.fused else {"foreach": True}
    optimizer = getattr(torch.optim, rule.name)(params, **rule.options, **implementation)
    stages: list[Callable[[], object]] = [optimizer.step]
    if pipeline.clip:
        clip = torch.nn.utils.clip_grad_norm_
        stages.insert(0, lambda: clip(params, MAX_NORM, foreach=True))
    if pipeline.zero:
        stages.append(lambda: optimizer.zero_grad(set_to_none=False))

    def step() -> None:
        for stage in stages:
            stage()

    grads = [p.grad.numpy() for p in params]
    return _side(step, [p.detach().numpy() for p in params], grads, pipeline.zero)


def _jax_adam(rule: Rule, pipeline: Pipeline, shapes: Shapes) -> Side:
    """Parameters and states are donated, so that XLA writes in place; gradients are data."""
    import jax

    from cases.jax_adam import adam

    grads = [jax.numpy.asarray(x) for x in _arrays(shapes, SEED + 1)]
    params = [jax.numpy.asarray(x) for x in _arrays(shapes, SEED)]
    zeros = [[jax.numpy.zeros_like(p) for p in params] for _ in range(2)]
    last: dict[str, Any] = {"state": (params, *zeros, jax.numpy.zeros(()))}

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: Any, grads: Any) -> Any:
        if pipeline.clip:
            norm = jax.numpy.sqrt(sum((g * g).sum() for g in grads))
            grads = [g * jax.numpy.minimum(1.0, MAX_NORM / (norm + 1e-6)) for g in grads]
        return adam(state, grads)

    def call() -> None:
        last["state"] = jax.block_until_ready(step(last["state"], grads))

    def answer() -> list[Array]:
        shown = [np.asarray(p).ravel()[:SHOWN] for p in last["state"][0]]
        if pipeline.zero:  # functions have no gradients to zero
            shown += [np.zeros(min(p.size, SHOWN), np.float32) for p in last["state"][0]]
        return [np.concatenate(shown)]

    return Side(call, answer)
