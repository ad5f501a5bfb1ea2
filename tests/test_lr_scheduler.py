"""Learning-rate schedules: formulas, PyTorch's values step by step, conditions, state."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from thalweg.optim import SGD, Adam, Optimizer, lr_scheduler
from thalweg.optim.lr_scheduler import (
    BatchSizeSchedule,
    ChainedScheduler,
    Conditions,
    LRScheduler,
    ReduceLROnPlateau,
    SequentialLR,
)

STEPS = 40
CONSTANT = Conditions(False, True, False)
ENDS = Conditions(True, False, True)  # also: shrinks geometrically
Formula = Callable[[float, int], float]


@dataclass(frozen=True)
class Row:
    """A schedule, its formula of (first rate, step count), the conditions it meets; whether
    torch has it too."""

    name: str
    arguments: dict[str, Any]
    formula: Formula
    conditions: Conditions | None
    torch: bool = True

    def label(self) -> str:
        """The same in every process: a function's own name would have its address."""
        shown = {k: "function" if callable(v) else v for k, v in self.arguments.items()}
        return f"{self.name}({shown})"

    def make(self, optimizer: Any, module: Any = lr_scheduler) -> Any:
        return getattr(module, self.name)(optimizer, **self.arguments)


def cosine(e: float, low: float, phase: float) -> float:
    return low + (e - low) * (1 + math.cos(math.pi * phase)) / 2


ROWS = [
    Row("LambdaLR", {"lr_lambda": lambda k: 0.9**k}, lambda e, k: e * 0.9**k, None),
    Row("ConstantLR", {"factor": 0.5, "total_iters": 4},
        lambda e, k: e * (0.5 if k < 4 else 1), CONSTANT),
    Row("LinearLR", {"start_factor": 0.25, "end_factor": 0.75, "total_iters": 8},
        lambda e, k: e * (0.25 + 0.5 * min(k, 8) / 8), CONSTANT),
    Row("LinearLR", {"end_factor": 0.0, "total_iters": 8},
        lambda e, k: e * (1 - min(k, 8) / 8) / 3, ENDS),
    Row("PolynomialLR", {"total_iters": 30, "power": 2.0},
        lambda e, k: e * (1 - min(k, 30) / 30) ** 2, ENDS),
    Row("StepLR", {"step_size": 7, "gamma": 0.5}, lambda e, k: e * 0.5 ** (k // 7), ENDS),
    Row("StepLR", {"step_size": 7, "gamma": 1.0}, lambda e, k: e, CONSTANT),
    Row("MultiStepLR", {"milestones": [3, 20], "gamma": 0.1},
        lambda e, k: e * 0.1 ** ((k >= 3) + (k >= 20)), CONSTANT),
    Row("ExponentialLR", {"gamma": 0.9}, lambda e, k: e * 0.9**k, ENDS),
    Row("CosineAnnealingLR", {"T_max": 15, "eta_min": 0.01},
        lambda e, k: cosine(e, 0.01, k / 15), CONSTANT),
    Row("CosineAnnealingWarmRestarts", {"T_0": 6, "eta_min": 0.01},
        lambda e, k: cosine(e, 0.01, k % 6 / 6), CONSTANT),
    Row("CosineAnnealingWarmRestarts", {"T_0": 5, "T_mult": 2},
        lambda e, k: cosine(e, 0, next((k - a) / (b - a) for a, b in
                                       ((0, 5), (5, 15), (15, 35), (35, 75)) if k < b)), CONSTANT),
    Row("LinearDecayLR", {"tau": 10, "end_lr": 0.02},
        lambda e, k: (1 - min(k, 10) / 10) * e + min(k, 10) / 10 * 0.02, CONSTANT, torch=False),
    Row("LinearDecayLR", {"tau": 10}, lambda e, k: e * (1 - min(k, 10) / 10), ENDS, torch=False),
    Row("ExponentialDecayLR", {"rate": 0.5, "decay_steps": 10},
        lambda e, k: e * 0.5 ** (k / 10), ENDS, torch=False),
    Row("InverseTimeLR", {"rate": 0.5}, lambda e, k: e / (1 + 0.5 * k),
        Conditions(True, True, True), torch=False),
    Row("InverseTimeLR", {"rate": 1.0, "power": 0.5}, lambda e, k: e / math.sqrt(1 + k),
        Conditions(True, True, False), torch=False),
    Row("InverseTimeLR", {"rate": 1.0, "power": 2.0}, lambda e, k: e / (1 + k) ** 2,
        Conditions(True, False, True), torch=False),
    Row("InverseTimeLR", {"rate": 0.0}, lambda e, k: e, CONSTANT, torch=False),
    Row("WarmupLR", {"warmup_steps": 5}, lambda e, k: e * min(1, (k + 1) / 5), CONSTANT,
        torch=False),
]  # fmt: skip
every_row = pytest.mark.parametrize("row", ROWS, ids=Row.label)
every_shared_row = pytest.mark.parametrize("row", [row for row in ROWS if row.torch], ids=Row.label)


def two_groups() -> SGD:
    return SGD([{"params": [np.zeros(1)]}, {"params": [np.zeros(1)], "lr": 0.3}], lr=0.1)


def rates(optimizer: Any) -> list[float]:
    return [group["lr"] for group in optimizer.param_groups]


def followed(scheduler: Any, steps: int = STEPS) -> list[list[float]]:
    """The groups' rates at first and after each step."""
    trace = [rates(scheduler.optimizer)]
    for _ in range(steps):
        scheduler.step()
        trace.append(rates(scheduler.optimizer))
    return trace


@every_row
def test_schedule_follows_its_formula(row: Row) -> None:
    expected = [[row.formula(e, k) for e in (0.1, 0.3)] for k in range(STEPS + 1)]
    np.testing.assert_allclose(followed(row.make(two_groups())), expected, rtol=1e-12, atol=1e-17)


@every_row
def test_schedule_states_its_conditions(row: Row) -> None:
    assert row.make(two_groups()).conditions() == row.conditions


@every_row
def test_state_of_a_schedule_continues(row: Row) -> None:
    scheduler = row.make(two_groups())
    trace = followed(scheduler)
    first = row.make(two_groups())
    followed(first, 11)
    second = row.make(two_groups())
    second.load_state_dict(first.state_dict())
    assert followed(second, STEPS - 11) == trace[11:]
    assert second.get_last_lr() == trace[-1]


@every_row
def test_schedule_continues_from_last_epoch(row: Row) -> None:
    optimizer = two_groups()
    trace = followed(row.make(optimizer))
    again = type(row.make(two_groups()))(optimizer, **row.arguments, last_epoch=9)
    assert followed(again, STEPS - 10) == trace[10:]


def test_last_epoch_needs_initial_rates() -> None:
    with pytest.raises(KeyError, match="StepLR: groups need 'initial_lr'"):
        lr_scheduler.StepLR(two_groups(), 3, last_epoch=4)


def test_one_function_for_each_group() -> None:
    scheduler = lr_scheduler.LambdaLR(two_groups(), [lambda k: k + 1.0, lambda k: 2.0])
    np.testing.assert_allclose(followed(scheduler, 1), [[0.1, 0.6], [0.2, 0.6]])


def test_sequence_counts_each_schedule_from_its_start() -> None:
    optimizer = two_groups()
    inner = SequentialLR(
        optimizer,
        [lr_scheduler.StepLR(optimizer, 2, 0.5), lr_scheduler.InverseTimeLR(optimizer, 1.0)],
        [4],
    )
    outer = SequentialLR(optimizer, [lr_scheduler.WarmupLR(optimizer, 4), inner], [3])
    first = [row[0] for row in followed(outer, 10)]
    expected = [0.025, 0.05, 0.075, 0.1, 0.1, 0.05, 0.05, 0.1, 0.05, 0.1 / 3, 0.025]
    np.testing.assert_allclose(first, expected)
    assert outer.conditions() == Conditions(True, True, True)


def test_chain_multiplies() -> None:
    optimizer = two_groups()
    parts = [lr_scheduler.WarmupLR(optimizer, 4), lr_scheduler.ExponentialLR(optimizer, 0.5)]
    trace = followed(ChainedScheduler(parts), 5)
    expected = [0.1 * min(1, (k + 1) / 4) * 0.5**k for k in range(6)]
    np.testing.assert_allclose([row[0] for row in trace], expected)


def test_plateau_waits_and_cools_down() -> None:
    optimizer = SGD([np.zeros(1)], lr=1.0)
    scheduler = ReduceLROnPlateau(optimizer, factor=0.5, patience=1, cooldown=2, min_lr=0.2)
    trace = []
    for loss in [3, 2, 2, 2, 2, 2, 2, 2, math.nan, 1, 1, 1, 1]:
        scheduler.step(loss)
        trace.append(optimizer.param_groups[0]["lr"])
    assert trace == [1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25, 0.2, 0.2]


def test_plateau_in_a_state_dict() -> None:
    a, b = SGD([np.zeros(1)], lr=1.0), SGD([np.zeros(1)], lr=1.0)
    first, second = (ReduceLROnPlateau(o, "max", patience=3) for o in (a, b))
    for value in (1.0, 2.0, 2.0, 1.5):
        first.step(value)
    second.load_state_dict(first.state_dict())
    for value in (1.9, 1.9):
        first.step(value)
        second.step(value)
    assert second.get_last_lr() == first.get_last_lr() == [pytest.approx(0.1)]


def test_one_cycle_moves_momentum_against_the_rate() -> None:
    for optimizer in (SGD([np.zeros(1)], 0.1, momentum=0.9), Adam([np.zeros(1)])):
        scheduler = lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=20)
        seen = []
        for _ in range(20):
            group = optimizer.param_groups[0]
            momentum = group["betas"][0] if "betas" in group else group["momentum"]
            seen.append((group["lr"], momentum))
            scheduler.step()
        assert seen[0] == (pytest.approx(1 / 25), pytest.approx(0.95))
        assert seen[5] == (pytest.approx(1.0), pytest.approx(0.85))
        assert seen[19] == (pytest.approx(1 / 25e4), pytest.approx(0.95))
        with pytest.raises(ValueError, match="step 21 of a schedule of 20 steps"):
            scheduler.step()


def test_batch_grows_where_the_gradient_is_noise() -> None:
    class Loader:
        batch_size = 8

    loader = Loader()
    schedule = BatchSizeSchedule(loader, maximum=50)
    sizes = []
    for noise in (4.0, 20.0, 10.0, 1e3, None, None):
        schedule.step(noise)
        sizes.append(loader.batch_size)
    assert sizes == [8, 16, 16, 32, 50, 50]
    other = BatchSizeSchedule(Loader(), maximum=50)
    other.load_state_dict(schedule.state_dict())
    assert other.loader.batch_size == 50


BAD: list[tuple[Callable[[Optimizer], Any], type[Exception], str]] = [
    (lambda o: lr_scheduler.StepLR(o, 0), ValueError, "StepLR: step_size must be at least 1"),
    (lambda o: lr_scheduler.ExponentialLR(o, -1), ValueError, "gamma must be at least 0, got -1"),
    (lambda o: lr_scheduler.InverseTimeLR(o, math.nan), ValueError, "rate must be at least 0"),
    (lambda o: lr_scheduler.CosineAnnealingLR(o, 0), ValueError, "T_max must be at least 1"),
    (lambda o: lr_scheduler.ExponentialDecayLR(o, 0.5, 0), ValueError, "decay_steps must be"),
    (lambda o: lr_scheduler.LambdaLR(o, [abs]), ValueError, "LambdaLR: 1 functions for 2 groups"),
    (lambda o: SequentialLR(o, [], []), ValueError, "SequentialLR: expected at least one"),
    (lambda o: SequentialLR(o, [ReduceLROnPlateau(o)], []), TypeError,
     "SequentialLR: ReduceLROnPlateau is no function"),
    (lambda o: SequentialLR(o, [LRScheduler] * 2, [1]), TypeError,
     "SequentialLR"),
    (lambda o: SequentialLR(o, [lr_scheduler.StepLR(o, 1)], [1]), ValueError,
     "expected 0 milestones for 1 schedulers, got 1"),
    (lambda o: ChainedScheduler([lr_scheduler.StepLR(x, 1) for x in (o, two_groups())]),
     ValueError, "different optimizers"),
    (lambda o: lr_scheduler.OneCycleLR(o, 1.0), ValueError, "give total_steps, or epochs"),
    (lambda o: lr_scheduler.OneCycleLR(o, 1.0, 9, pct_start=2), ValueError, "pct_start must be"),
    (lambda o: lr_scheduler.OneCycleLR(o, 1.0, 9, anneal_strategy="x"), ValueError,
     "anneal_strategy must be 'cos' or 'linear', got 'x'"),
    (lambda o: ReduceLROnPlateau(o, factor=1.0), ValueError, r"factor must be in \[0, 1\)"),
    (lambda o: ReduceLROnPlateau(o, "lowest"), ValueError, "mode must be"),
    (lambda o: ReduceLROnPlateau(o, min_lr=[0.1]), ValueError, "1 min_lr for 2 groups"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "error", "message"), BAD)
def test_bad_schedule_is_refused(
    make: Callable[[Optimizer], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make(two_groups())


# --- beside PyTorch ------------------------------------------------------------------------------


def torch_groups(**options: Any) -> Any:
    torch = pytest.importorskip("torch")
    groups = [{"params": [torch.zeros(1)]}, {"params": [torch.zeros(1)], "lr": 0.3}]
    return torch.optim.SGD(groups, lr=0.1, **options)


def torch_followed(scheduler: Any, steps: int = STEPS) -> list[list[float]]:
    """As `followed`; torch warns where no optimizer step comes before the schedule's."""
    scheduler.optimizer.step()
    return followed(scheduler, steps)


@pytest.mark.torch
@pytest.mark.parametrize("three_phase", [False, True])
@pytest.mark.parametrize("anneal_strategy", ["cos", "linear"])
@pytest.mark.parametrize("pct_start", [0.3, 0.45])
def test_one_cycle_agrees_with_torch(
    three_phase: bool, anneal_strategy: str, pct_start: float
) -> None:
    torch = pytest.importorskip("torch")
    options = {"three_phase": three_phase, "anneal_strategy": anneal_strategy}
    options |= {"max_lr": [1.0, 2.0], "total_steps": STEPS, "pct_start": pct_start}
    optimizer, peer = two_groups(), torch_groups(momentum=0.9)
    ours = followed(lr_scheduler.OneCycleLR(optimizer, **options))
    theirs = torch_followed(torch.optim.lr_scheduler.OneCycleLR(peer, **options))
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    assert optimizer.param_groups[0]["momentum"] == pytest.approx(peer.param_groups[0]["momentum"])


def assert_agrees_with_torch(make: Callable[[Any, Any], Any]) -> None:
    """`make(optimizer, module)` builds a schedule of either library."""
    torch = pytest.importorskip("torch")
    ours = followed(make(two_groups(), lr_scheduler))
    theirs = torch_followed(make(torch_groups(), torch.optim.lr_scheduler))
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-16)


@pytest.mark.torch
@every_shared_row
def test_schedule_agrees_with_torch(row: Row) -> None:
    assert_agrees_with_torch(row.make)


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step():UserWarning")
def test_sequence_agrees_with_torch() -> None:
    def make(optimizer: Any, module: Any) -> Any:
        parts = [
            module.LinearLR(optimizer, total_iters=4),
            module.ConstantLR(optimizer, factor=0.1, total_iters=3),
            module.CosineAnnealingLR(optimizer, T_max=30),
        ]
        return module.SequentialLR(optimizer, parts, milestones=[5, 12])

    assert_agrees_with_torch(make)


@pytest.mark.torch
def test_chain_agrees_with_torch() -> None:
    def make(optimizer: Any, module: Any) -> Any:
        parts = [
            module.ConstantLR(optimizer, factor=0.1, total_iters=3),
            module.ExponentialLR(optimizer, 0.9),
        ]
        return module.ChainedScheduler(parts)

    assert_agrees_with_torch(make)


@pytest.mark.torch
@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("threshold_mode", ["rel", "abs"])
def test_plateau_agrees_with_torch(mode: str, threshold_mode: str) -> None:
    torch = pytest.importorskip("torch")
    options = {"mode": mode, "threshold_mode": threshold_mode, "threshold": 0.05}
    options |= {"patience": 2, "cooldown": 1, "factor": 0.5, "min_lr": [0.01, 0.02]}
    ours, theirs = two_groups(), torch_groups()
    a = ReduceLROnPlateau(ours, **options)
    b = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, **options)
    rng = np.random.default_rng(0)
    for metric in rng.standard_normal(60):
        a.step(metric)
        b.step(metric)
        assert rates(ours) == rates(theirs)
