"""Learning-rate schedules: functions of the number of steps, with PyTorch's names where it has one.

A schedule is a closed form `lr_at(base_lr, k)` of the rate that a group had at first and of the
count k of `step()` calls. So schedules can be read off without running them, joined in time
(`SequentialLR`, `WarmupLR`) and multiplied (`ChainedScheduler`); two that step the same optimizer
outside those do not multiply: the later one wins.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence

from .base import Optimizer
from .composed import ChainedScheduler, SequentialLR
from .measured import BatchSizeSchedule, ReduceLROnPlateau
from .one_cycle import OneCycleLR
from .schedule import Conditions, LRScheduler, check_at_least

__all__ = [
    "BatchSizeSchedule",
    "ChainedScheduler",
    "Conditions",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "ExponentialDecayLR",
    "ExponentialLR",
    "InverseTimeLR",
    "LRScheduler",
    "LambdaLR",
    "LinearDecayLR",
    "LinearLR",
    "MultiStepLR",
    "OneCycleLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
    "WarmupLR",
]


class LambdaLR(LRScheduler):
    """`base_lr * lr_lambda(k)`; one function, or one per group."""

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ) -> None:
        groups = len(optimizer.param_groups)
        self.lr_lambdas = [lr_lambda] * groups if callable(lr_lambda) else list(lr_lambda)
        if len(self.lr_lambdas) != groups:
            raise ValueError(f"LambdaLR: {len(self.lr_lambdas)} functions for {groups} groups")
        super().__init__(optimizer, last_epoch)

    def group_lr_at(self, index: int, k: int) -> float:
        return self.base_lrs[index] * self.lr_lambdas[index](k)


class ConstantLR(LRScheduler):
    """`base_lr * factor` for the first `total_iters` steps, then `base_lr`."""

    def __init__(
        self,
        optimizer: Optimizer,
        factor: float = 1 / 3,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        check_at_least("ConstantLR", "factor", factor, 0)
        self.factor, self.total_iters = factor, total_iters
        super().__init__(optimizer, last_epoch)

    def lr_at(self, base_lr: float, k: int) -> float:
        return base_lr * self.factor if k < self.total_iters else base_lr

    def conditions(self) -> Conditions:
        return Conditions.constant()


class LinearLR(LRScheduler):
    """From `base_lr*start_factor` to `base_lr*end_factor` in `total_iters` equal steps."""

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        check_at_least("LinearLR", "start_factor", start_factor, 0)
        check_at_least("LinearLR", "end_factor", end_factor, 0)
        check_at_least("LinearLR", "total_iters", total_iters, 1)
        self.start_factor, self.end_factor = start_factor, end_factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def lr_at(self, base_lr: float, k: int) -> float:
        done = min(k, self.total_iters) / self.total_iters
        return base_lr * (self.start_factor + (self.end_factor - self.start_factor) * done)

    def conditions(self) -> Conditions:
        return Conditions.constant(self.end_factor)


class PolynomialLR(LRScheduler):
    """`base_lr * (1 - k/total_iters)^power`, then 0."""

    def __init__(
        self,
        optimizer: Optimizer,
        total_iters: int = 5,
        power: float = 1.0,
        last_epoch: int = -1,
    ) -> None:
        check_at_least("PolynomialLR", "total_iters", total_iters, 1)
        self.total_iters, self.power = total_iters, power
        super().__init__(optimizer, last_epoch)

    def lr_at(self, base_lr: float, k: int) -> float:
        return float(base_lr * (1 - min(k, self.total_iters) / self.total_iters) ** self.power)

    def conditions(self) -> Conditions:
        return Conditions.constant(0.0 if self.power > 0 else 1.0)


class LinearDecayLR(LRScheduler):
    """`(1-k/tau)*base_lr + k/tau*end_lr` until k = tau, then `end_lr` (Goodfellow 2016, 8.14)."""

    def __init__(
        self, optimizer: Optimizer, tau: int, end_lr: float = 0.0, last_epoch: int = -1
    ) -> None:
        check_at_least("LinearDecayLR", "tau", tau, 1)
        check_at_least("LinearDecayLR", "end_lr", end_lr, 0)
        self.tau, self.end_lr = tau, end_lr
        super().__init__(optimizer, last_epoch)

    def lr_at(self, base_lr: float, k: int) -> float:
        done = min(k, self.tau) / self.tau
        return (1 - done) * base_lr + done * self.end_lr

    def conditions(self) -> Conditions:
        return Conditions.constant(self.end_lr)


class StepLR(LRScheduler):
    """`base_lr * gamma^(k // step_size)`."""

    def __init__(
        self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        check_at_least("StepLR", "step_size", step_size, 1)
        check_at_least("StepLR", "gamma", gamma, 0)
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def lr_at(self, base_lr: float, k: int) -> float:
        return float(base_lr * self.gamma ** (k // self.step_size))

    def conditions(self) -> Conditions:
        return Conditions.geometric(self.gamma)


class MultiStepLR(LRScheduler):
    """`base_lr * gamma^(number of milestones <= k)`."""

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: Sequence[int],
        gamma: float = 0.1,
        last_epoch: int = -1,
    ) -> None:
        check_at_least("MultiStepLR", "gamma", gamma, 0)
        self.milestones, self.gamma = sorted(milestones), gamma
        super().__init__(optimizer, last_epoch)

    def lr_at(self, base_lr: float, k: int) -> float:
        return float(base_lr * self.gamma ** bisect_right(self.milestones, k))

    def conditions(self) -> Conditions:
        return Conditions.constant(self.gamma if self.milestones else 1.0)


class ExponentialLR(LRScheduler):
    """`base_lr * gamma^k`."""

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        check_at_least("ExponentialLR", "gamma", gamma, 0)
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def lr_at(self, base_lr: float, k: int) -> float:
        return float(base_lr * self.gamma**k)

    def conditions(self) -> Conditions:
        return Conditions.geometric(self.gamma)


class ExponentialDecayLR(LRScheduler):
    """`base_lr * rate^(k/decay_steps)`."""

    def __init__(
        self, optimizer: Optimizer, rate: float, decay_steps: float = 1.0, last_epoch: int = -1
    ) -> None:
        check_at_least("ExponentialDecayLR", "rate", rate, 0)
        if decay_steps <= 0:
            raise ValueError(f"ExponentialDecayLR: decay_steps must be positive, got {decay_steps}")
        self.rate, self.decay_steps = rate, decay_steps
        super().__init__(optimizer, last_epoch)

    def lr_at(self, base_lr: float, k: int) -> float:
        return float(base_lr * self.rate ** (k / self.decay_steps))

    def conditions(self) -> Conditions:
        return Conditions.geometric(self.rate)


class InverseTimeLR(LRScheduler):
    """`base_lr / (1+rate*k)^power`; power 1 meets all conditions, 1/2 misses the third."""

    def __init__(
        self, optimizer: Optimizer, rate: float, power: float = 1.0, last_epoch: int = -1
    ) -> None:
        check_at_least("InverseTimeLR", "rate", rate, 0)
        check_at_least("InverseTimeLR", "power", power, 0)
        self.rate, self.power = rate, power
        super().__init__(optimizer, last_epoch)

    def lr_at(self, base_lr: float, k: int) -> float:
        return float(base_lr / (1 + self.rate * k) ** self.power)

    def conditions(self) -> Conditions:
        power = self.power if self.rate else 0.0
        return Conditions(power > 0, power <= 1, power > 0.5)


def _cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2


class CosineAnnealingLR(LRScheduler):
    """`eta_min + (base_lr-eta_min)*(1+cos(pi*k/T_max))/2` (Loshchilov & Hutter 2017)."""

    def __init__(
        self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        check_at_least("CosineAnnealingLR", "T_max", T_max, 1)
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def lr_at(self, base_lr: float, k: int) -> float:
        return _cosine(base_lr, self.eta_min, k / self.T_max)

    def conditions(self) -> Conditions:
        return Conditions.constant()


class CosineAnnealingWarmRestarts(LRScheduler):
    """Cosine annealing that starts anew after T_0, T_0*T_mult, T_0*T_mult², … steps (SGDR)."""

    def __init__(
        self,
        optimizer: Optimizer,
        T_0: int,
        T_mult: int = 1,
        eta_min: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        check_at_least("CosineAnnealingWarmRestarts", "T_0", T_0, 1)
        check_at_least("CosineAnnealingWarmRestarts", "T_mult", T_mult, 1)
        self.T_0, self.T_mult, self.eta_min = T_0, T_mult, eta_min
        super().__init__(optimizer, last_epoch)

    def lr_at(self, base_lr: float, k: int) -> float:
        period = self.T_0
        while k >= period and self.T_mult > 1:
            k, period = k - period, period * self.T_mult
        return _cosine(base_lr, self.eta_min, (k % period) / period)

    def conditions(self) -> Conditions:
        return Conditions.constant()


class WarmupLR(LRScheduler):
    """`base_lr * (k+1)/warmup_steps`, then `base_lr`: the linear warm-up before a schedule.

    >>> opt = tw.optim.SGD([np.zeros(3)], lr=1.0)
    >>> parts = [WarmupLR(opt, 2), ExponentialLR(opt, 0.5)]
    >>> schedule = SequentialLR(opt, parts, milestones=[2])
    >>> [schedule.lr_at(1.0, k) for k in range(5)]
    [0.5, 1.0, 1.0, 0.5, 0.25]
    """

    def __init__(self, optimizer: Optimizer, warmup_steps: int, last_epoch: int = -1) -> None:
        check_at_least("WarmupLR", "warmup_steps", warmup_steps, 1)
        self.warmup_steps = warmup_steps
        super().__init__(optimizer, last_epoch)

    def lr_at(self, base_lr: float, k: int) -> float:
        return base_lr * min(k + 1, self.warmup_steps) / self.warmup_steps

    def conditions(self) -> Conditions:
        return Conditions.constant()
