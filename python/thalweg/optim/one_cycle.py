"""The one-cycle policy: the rate goes up and down once, momentum the opposite way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from .base import Optimizer
from .schedule import LRScheduler, check_at_least


class Phase(NamedTuple):
    """Until step `end`, the rate (as a multiple of max_lr) and momentum go from one to another."""

    end: float
    rate: tuple[float, float]
    momentum: tuple[float, float]


class OneCycleLR(LRScheduler):
    """Up from `max_lr/div_factor` to `max_lr`, down to `max_lr/div_factor/final_div_factor`.

    Momentum (or beta1) goes the opposite way between `max_momentum` and `base_momentum`. Defined
    for `total_steps` steps; a further one raises ValueError. Smith & Topin 2018, arXiv:1708.07120;
    arguments as in PyTorch.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: Literal["cos", "linear"] = "cos",
        cycle_momentum: bool = True,
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ValueError("OneCycleLR: give total_steps, or epochs and steps_per_epoch")
            total_steps = epochs * steps_per_epoch
        check_at_least("OneCycleLR", "total_steps", total_steps, 1)
        if not 0 <= pct_start <= 1:
            raise ValueError(f"OneCycleLR: pct_start must be in [0, 1], got {pct_start}")
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(
                f"OneCycleLR: anneal_strategy must be 'cos' or 'linear', got {anneal_strategy!r}"
            )
        if cycle_momentum and not {"momentum", "betas"} & optimizer.defaults.keys():
            raise ValueError("OneCycleLR: the optimizer has no momentum; set cycle_momentum=False")
        groups = len(optimizer.param_groups)
        self.max_lrs = list(max_lr) if isinstance(max_lr, Sequence) else [max_lr] * groups
        if len(self.max_lrs) != groups:
            raise ValueError(f"OneCycleLR: {len(self.max_lrs)} max_lr for {groups} groups")
        self.total_steps, self.anneal_strategy = total_steps, anneal_strategy
        self.cycle_momentum = cycle_momentum
        start, end = 1 / div_factor, 1 / div_factor / final_div_factor
        fall, rise = (max_momentum, base_momentum), (base_momentum, max_momentum)
        top = pct_start * total_steps - 1
        self.phases = [Phase(top, (start, 1.0), fall), Phase(total_steps - 1, (1.0, end), rise)]
        if three_phase:
            self.phases[1:] = [
                Phase(2 * top, (1.0, start), rise),
                Phase(total_steps - 1, (start, end), (max_momentum, max_momentum)),
            ]
        super().__init__(optimizer, last_epoch)

    def _phase(self, k: int) -> tuple[Phase, float]:
        """The phase of step k and how much of it is done."""
        if k > self.total_steps:
            raise ValueError(f"OneCycleLR: step {k} of a schedule of {self.total_steps} steps")
        start = 0.0
        for phase in self.phases[:-1]:
            if k <= phase.end:
                return phase, (k - start) / (phase.end - start) if phase.end > start else 1.0
            start = max(phase.end, start)
        last = self.phases[-1]
        return last, (k - start) / (last.end - start) if last.end > start else 1.0

    def _between(self, ends: tuple[float, float], done: float) -> float:
        start, end = ends
        if self.anneal_strategy == "linear":
            return start + (end - start) * done
        return end + (start - end) / 2 * (1 + math.cos(math.pi * done))

    def lr_at(self, base_lr: float, k: int) -> float:
        """The rate after k steps where `max_lr` is `base_lr`."""
        phase, done = self._phase(k)
        return base_lr * self._between(phase.rate, done)

    def group_lr_at(self, index: int, k: int) -> float:
        return self.lr_at(self.max_lrs[index], k)

    def apply(self, k: int) -> None:
        super().apply(k)
        if not self.cycle_momentum:
            return
        phase, done = self._phase(k)
        momentum = self._between(phase.momentum, done)
        for group in self.optimizer.param_groups:
            options: dict[str, Any] = {"momentum": momentum}
            if "betas" in group:
                options = {"betas": (momentum, group["betas"][1])}
            group.update(options)
