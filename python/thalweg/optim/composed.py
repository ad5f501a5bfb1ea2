"""Schedules of several parts: joined in time, or multiplied."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

from .base import Optimizer
from .schedule import Conditions, LRScheduler


def _check_parts(owner: str, schedulers: Sequence[LRScheduler]) -> None:
    if not schedulers:
        raise ValueError(f"{owner}: expected at least one scheduler")
    for part in schedulers:
        if not isinstance(part, LRScheduler):
            raise TypeError(f"{owner}: {type(part).__name__} is no function of the step count")
        if part.optimizer is not schedulers[0].optimizer:
            raise ValueError(f"{owner}: the schedulers belong to different optimizers")


class SequentialLR(LRScheduler):
    """Schedule i from `milestones[i-1]` on, each counting from 0 at its own start."""

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: Sequence[LRScheduler],
        milestones: Sequence[int],
        last_epoch: int = -1,
    ) -> None:
        _check_parts("SequentialLR", schedulers)
        if len(milestones) != len(schedulers) - 1:
            raise ValueError(
                f"SequentialLR: expected {len(schedulers) - 1} milestones for {len(schedulers)} "
                f"schedulers, got {len(milestones)}"
            )
        if list(milestones) != sorted(set(milestones)):
            raise ValueError(f"SequentialLR: milestones must increase, got {list(milestones)}")
        self.schedulers, self.milestones = list(schedulers), list(milestones)
        super().__init__(optimizer, last_epoch)

    def _at(self, k: int) -> tuple[LRScheduler, int]:
        """The schedule that rules after k steps, and its own count."""
        i = bisect_right(self.milestones, k)
        return self.schedulers[i], k - (self.milestones[i - 1] if i else 0)

    def lr_at(self, base_lr: float, k: int) -> float:
        part, own = self._at(k)
        return part.lr_at(base_lr, own)

    def group_lr_at(self, index: int, k: int) -> float:
        part, own = self._at(k)
        return part.group_lr_at(index, own)

    def apply(self, k: int) -> None:
        part, own = self._at(k)
        part.apply(own)

    def conditions(self) -> Conditions | None:
        return self.schedulers[-1].conditions()


class ChainedScheduler(LRScheduler):
    """The product of schedules: `base_lr * Π lr_i(k)/base_lr`, as PyTorch's chained schedulers.

    Unlike PyTorch's it is the only one to be stepped.
    """

    def __init__(self, schedulers: Sequence[LRScheduler]) -> None:
        _check_parts("ChainedScheduler", schedulers)
        self.schedulers = list(schedulers)
        super().__init__(schedulers[0].optimizer)

    def group_lr_at(self, index: int, k: int) -> float:
        base = self.base_lrs[index]
        factors = [part.group_lr_at(index, k) / base for part in self.schedulers] if base else []
        return base * math.prod(factors)
