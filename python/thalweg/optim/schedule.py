"""What all learning-rate schedules share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..recording import on_host
from .base import Optimizer


def check_at_least(owner: str, name: str, value: float, least: float) -> None:
    """Raise ValueError unless `value >= least` (NaN is not)."""
    if not value >= least:
        raise ValueError(f"{owner}: {name} must be at least {least}, got {value}")


class Conditions(NamedTuple):
    """What stochastic approximation asks of rates gamma(t) (Robbins & Monro 1951).

    vanishes: gamma(t) → 0. sum_diverges: Σ gamma(t) = ∞. square_sum_converges: Σ gamma(t)² < ∞.
    """

    vanishes: bool
    sum_diverges: bool
    square_sum_converges: bool

    @classmethod
    def constant(cls, limit: float = 1.0) -> Conditions:
        """Of a rate that stays at `limit` after finitely many steps, or oscillates."""
        return cls(limit == 0, limit != 0, limit == 0)

    @classmethod
    def geometric(cls, ratio: float) -> Conditions:
        """Of a rate that is multiplied by `ratio` again and again."""
        return cls(ratio < 1, ratio >= 1, ratio < 1)


class LRScheduler:
    """Base: sets every group's "lr" to `lr_at(initial_lr, k)`, at once and after each `step()`.

    Args:
        optimizer: its groups get the key "initial_lr".
        last_epoch: the count to continue from; -1 starts anew.
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.optimizer = optimizer
        for group in optimizer.param_groups:
            if last_epoch >= 0 and "initial_lr" not in group:
                raise KeyError(
                    f"{type(self).__name__}: groups need 'initial_lr' to continue from last_epoch"
                )
            group.setdefault("initial_lr", group["lr"])
        self.base_lrs = [float(group["initial_lr"]) for group in optimizer.param_groups]
        self.last_epoch = last_epoch + 1
        self.apply(self.last_epoch)

    def lr_at(self, base_lr: float, k: int) -> float:
        """The rate after k steps of a group that started with `base_lr`."""
        raise NotImplementedError

    def conditions(self) -> Conditions | None:
        """Which conditions the schedule meets as k → ∞; None where that is not known."""
        return None

    def step(self) -> None:
        """Count one step (an epoch or an update, as the caller likes) and set the rates."""
        on_host(self._step)

    def _step(self) -> None:
        self.last_epoch += 1
        self.apply(self.last_epoch)

    def apply(self, k: int) -> None:
        """Set the optimizer to what it should be after k steps."""
        for i, group in enumerate(self.optimizer.param_groups):
            group["lr"] = self.group_lr_at(i, k)

    def get_last_lr(self) -> list[float]:
        """The rates of the groups as of now."""
        return [self.group_lr_at(i, self.last_epoch) for i in range(len(self.base_lrs))]

    def group_lr_at(self, index: int, k: int) -> float:
        """`lr_at` of group `index`; differs from it where groups have schedules of their own."""
        return self.lr_at(self.base_lrs[index], k)

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` of a scheduler made with the same arguments needs."""
        return {"last_epoch": self.last_epoch, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken; sets the optimizer's rates."""
        if len(state_dict["base_lrs"]) != len(self.base_lrs):
            raise ValueError(
                f"{type(self).__name__}: the state has {len(state_dict['base_lrs'])} groups, "
                f"the optimizer {len(self.base_lrs)}"
            )
        self.last_epoch = int(state_dict["last_epoch"])
        self.base_lrs = list(state_dict["base_lrs"])
        self.apply(self.last_epoch)
