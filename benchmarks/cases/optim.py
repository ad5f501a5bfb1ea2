"""Optimizer steps: memory-bound (one large tensor), threaded (100 x 100 K), in cache (1000 x 1 K).

PyTorch runs with fused=True where the rule has it, else foreach=True. Bytes per parameter:
parameter read and written, gradient read, each state read and written, 4 bytes each.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

import thalweg as tw
from case import Call, Case, Trial, Work
from measure import Record, Run, compare

SEED = 0
MAX_NORM = 1.0

# tensors, elements of each
SIZES = [(1, 32_000_000), (100, 100_000), (1000, 1000)]
QUICK_SIZES = [(1, 8_000_000), (1000, 1000)]


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
PIPELINES = [Pipeline(clip=True), Pipeline(clip=True, zero=True)]


def records(run: Run) -> Iterator[Record]:
    sizes = QUICK_SIZES if run.quick else SIZES
    rules = QUICK_RULES if run.quick else RULES
    plan = [(rule, ALONE) for rule in rules] + [(ADAM, pipeline) for pipeline in PIPELINES]
    cases = (
        Case(
            f"{pipeline.label.format(rule.label)} {tensors}x{_short(elements)}",
            functools.partial(make, rule, pipeline, tensors, elements),
        )
        for tensors, elements in sizes
        for rule, pipeline in plan
    )
    return compare("optim", cases, run)


def _short(elements: int) -> str:
    return f"{elements // 10**6}M" if elements >= 10**6 else f"{elements // 1000}K"


def make(
    rule: Rule, pipeline: Pipeline, tensors: int, elements: int, peers: Mapping[str, ModuleType]
) -> Trial:
    rng = np.random.default_rng(SEED)
    start = [rng.standard_normal(elements, np.float32) for _ in range(tensors)]
    slope = [rng.standard_normal(elements, np.float32) for _ in range(tensors)]
    sides = {"thalweg": _ours(rule, pipeline, start, slope)}
    if "torch" in peers:
        impl = "torch fused" if rule.fused else "torch foreach"
        sides[impl] = _torch(peers["torch"], rule, pipeline, start, slope)

    def prepare() -> None:
        for _, grads, _ in sides.values():
            for grad, values in zip(grads, slope, strict=True):
                np.copyto(grad, values)

    def check() -> None:
        for _ in range(3):
            prepare()
            for _, _, call in sides.values():
                call()
        for params, grads, _ in sides.values():
            for ours, theirs in zip(sides["thalweg"][0], params, strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
            assert not (pipeline.zero and any(grad.any() for grad in grads))

    calls = {impl: call for impl, (_, _, call) in sides.items()}
    elements *= tensors
    work = Work(
        bytes=4.0 * elements * (3 + 2 * rule.states + pipeline.passes),
        footprint=4.0 * elements * (2 + rule.states),
    )
    return Trial(calls.pop("thalweg"), calls, check, work, prepare if pipeline.zero else None)


Arrays = list[np.ndarray]
Side = tuple[Arrays, Arrays, Call]  # parameters, gradients, one step


def _ours(rule: Rule, pipeline: Pipeline, start: Arrays, slope: Arrays) -> Side:
    params, grads = _copies(start), _copies(slope)
    options = rule.options | ({"max_norm": MAX_NORM} if pipeline.clip else {})
    optimizer = getattr(tw.optim, rule.name)(params, **options)
    return params, grads, lambda: optimizer.step(grads, zero_grad=pipeline.zero)


def _torch(torch: ModuleType, rule: Rule, pipeline: Pipeline, start: Arrays, slope: Arrays) -> Side:
    params = [torch.nn.Parameter(torch.from_numpy(array)) for array in _copies(start)]
    for param, values in zip(params, _copies(slope), strict=True):
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

    return [p.detach().numpy() for p in params], [p.grad.numpy() for p in params], step


def _copies(arrays: Arrays) -> Arrays:
    return [array.copy() for array in arrays]
