"""Schedules that follow measurements: a plateau of the loss, the noise of the gradient."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, SupportsFloat

from ..recording import refuse
from .base import Optimizer
from .schedule import check_at_least


class ReduceLROnPlateau:
    """Multiply every rate by `factor` after more than `patience` steps without improvement.

    Args:
        mode: "min" where a smaller metric is better, "max" where a larger one is.
        threshold: an improvement is smaller than `best*(1-threshold)` (`threshold_mode` "rel") or
            `best-threshold` ("abs"); mirrored for "max".
        cooldown: steps after a reduction during which nothing is counted.
        min_lr: lower bound, for all groups or one per group.
        eps: reductions of the rate by no more than this are left out.
    """

    _STATE = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")

    def __init__(
        self,
        optimizer: Optimizer,
        mode: Literal["min", "max"] = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: Literal["rel", "abs"] = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0.0,
        eps: float = 1e-8,
    ) -> None:
        if not 0 <= factor < 1:
            raise ValueError(f"ReduceLROnPlateau: factor must be in [0, 1), got {factor}")
        if mode not in ("min", "max"):
            raise ValueError(f"ReduceLROnPlateau: mode must be 'min' or 'max', got {mode!r}")
        if threshold_mode not in ("rel", "abs"):
            raise ValueError(
                f"ReduceLROnPlateau: threshold_mode must be 'rel' or 'abs', got {threshold_mode!r}"
            )
        groups = len(optimizer.param_groups)
        self.min_lrs = list(min_lr) if isinstance(min_lr, Sequence) else [min_lr] * groups
        if len(self.min_lrs) != groups:
            raise ValueError(f"ReduceLROnPlateau: {len(self.min_lrs)} min_lr for {groups} groups")
        self.optimizer, self.mode, self.factor, self.patience = optimizer, mode, factor, patience
        self.threshold, self.threshold_mode = threshold, threshold_mode
        self.cooldown, self.eps = cooldown, eps
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = self.cooldown_counter = self.last_epoch = 0

    def step(self, metrics: SupportsFloat) -> None:
        refuse("ReduceLROnPlateau.step counts in Python", "call it outside the captured step")
        """Count one step with this value of the metric. A NaN is no improvement."""
        value = float(metrics)
        self.last_epoch += 1
        if self._better(value):
            self.best, self.num_bad_epochs = value, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self._reduce()
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0

    def _better(self, value: float) -> bool:
        sign = 1 if self.mode == "min" else -1
        if self.threshold_mode == "rel":
            return sign * value < sign * self.best * (1 - sign * self.threshold)
        return sign * value < sign * self.best - self.threshold

    def _reduce(self) -> None:
        for group, min_lr in zip(self.optimizer.param_groups, self.min_lrs, strict=True):
            lr = max(group["lr"] * self.factor, min_lr)
            if group["lr"] - lr > self.eps:
                group["lr"] = lr

    def get_last_lr(self) -> list[float]:
        """The rates of the groups as of now."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """What the schedule has seen; the rates are in the optimizer's own state."""
        return {name: getattr(self, name) for name in self._STATE}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        for name in self._STATE:
            setattr(self, name, state_dict[name])


class HasBatchSize(Protocol):
    """A loader: anything whose attribute `batch_size` rules the batches that come next."""

    batch_size: int


class BatchSizeSchedule:
    """Grow the mini-batch: small while gradients agree, large once they decorrelate.

    After k steps the batch is `initial * factor^(k // every)`, at most `maximum`. With a measured
    gradient noise scale (McCandlish et al. 2018) the batch grows only where it is below the noise
    scale, since a larger one pays only then.

    >>> from types import SimpleNamespace
    >>> loader = SimpleNamespace(batch_size=32)
    >>> schedule = BatchSizeSchedule(loader, every=2, maximum=100)
    >>> for _ in range(4):
    ...     schedule.step()
    ...     print(loader.batch_size)
    32
    64
    64
    100
    """

    def __init__(
        self, loader: HasBatchSize, factor: float = 2.0, every: int = 1, maximum: int | None = None
    ) -> None:
        check_at_least("BatchSizeSchedule", "factor", factor, 1)
        check_at_least("BatchSizeSchedule", "every", every, 1)
        if maximum is not None:
            check_at_least("BatchSizeSchedule", "maximum", maximum, loader.batch_size)
        self.loader, self.factor, self.every, self.maximum = loader, factor, every, maximum
        self.initial = loader.batch_size
        self.last_epoch = self.growths = 0

    def size_at(self, growths: int) -> int:
        """The batch size after so many growths."""
        size = round(self.initial * self.factor**growths)
        return size if self.maximum is None else min(size, self.maximum)

    def step(self, noise_scale: float | None = None) -> None:
        """Count one step; grow the batch if it is time and, where measured, worth it."""
        self.last_epoch += 1
        worth = noise_scale is None or self.loader.batch_size < noise_scale
        if self.last_epoch % self.every == 0 and worth:
            self.growths += 1
        self.loader.batch_size = self.size_at(self.growths)

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` of a schedule made with the same arguments needs."""
        return {name: getattr(self, name) for name in ("initial", "last_epoch", "growths")}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken; sets the loader's batch size."""
        self.initial = int(state_dict["initial"])
        self.last_epoch, self.growths = int(state_dict["last_epoch"]), int(state_dict["growths"])
        self.loader.batch_size = self.size_at(self.growths)
