"""Dynamic loss scaling, for gradients in a format whose smallest numbers are too large: float16."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..recording import refuse
from .options import check_range


class GradScaler:
    """Multiplies the loss by a scale that is as large as the gradients bear.

    A step that meets Inf or NaN is skipped with parameters and states bit for bit as they were,
    and the scale is multiplied by `backoff_factor`; after `growth_interval` steps without one it is
    multiplied by `growth_factor`. Unscaling happens inside the optimizer's pass, before `max_norm`
    and `clip_value`, so there is no `unscale_`. Names and numbers are torch.amp.GradScaler's.
    Micikevicius et al. 2018, arXiv:1710.03740.

    Args:
        init_scale: in (0, inf).
        growth_factor: > 1.
        backoff_factor: in (0, 1).
        growth_interval: steps, at least 1.
        enabled: False makes `scale` and `step` ordinary.

    Attributes:
        skipped_steps: how many steps were left out.

    >>> p = np.array([1.0])
    >>> opt, scaler = tw.optim.SGD([p], lr=0.5), GradScaler(init_scale=4.0)
    >>> for g in (np.inf, 1.0):
    ...     taken = scaler.step(opt, grads=[np.array([scaler.scale(g)])])
    ...     scaler.update()
    >>> p, scaler.get_scale(), scaler.skipped_steps
    (array([0.5]), 2.0, 1)
    """

    def __init__(
        self,
        init_scale: float = 65536.0,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        self._enabled = enabled
        self._found = False
        self._stepped = False
        self.skipped_steps = 0
        self._set(init_scale, growth_factor, backoff_factor, growth_interval, 0)

    def _set(
        self, scale: float, growth: float, backoff: float, interval: int, tracker: int
    ) -> None:
        for name, value in (
            ("init_scale", scale),
            ("growth_factor", growth),
            ("backoff_factor", backoff),
            ("growth_interval", interval),
        ):
            check_range("GradScaler", name, value)
        self._scale, self._growth_tracker = float(scale), int(tracker)
        self._growth_factor, self._backoff_factor = float(growth), float(backoff)
        self._growth_interval = int(interval)

    def get_scale(self) -> float:
        """The scale of the next loss; 1 where disabled."""
        return self._scale if self._enabled else 1.0

    def scale(self, loss: Any) -> Any:
        """`loss` times the scale: a number, an array or a tensor."""
        return loss * self._scale if self._enabled else loss

    def step(self, optimizer: Any, **options: Any) -> bool:
        """`optimizer.step(**options)` on unscaled gradients, or nothing if one is Inf or NaN.

        Args:
            optimizer: an `Optimizer`, or a `DataParallel` that has one: gradients are summed over
                the ranks before the step, so all ranks skip the same steps.
            options: of `Optimizer.step`; a `grad_scale` multiplies the unscaled gradients.

        The step is one with `nonfinite="skip"`, whatever the optimizer's own policy is: several
        optimizers under one scaler skip each for itself, and one that skipped lowers the scale of
        all at `update`.

        Returns whether the step was taken.
        """
        if not self._enabled:
            optimizer.step(**options)
            return True
        refuse("GradScaler.step decides in Python", "scale outside a captured step")
        stepped = getattr(optimizer, "optimizer", optimizer)
        before, policy = stepped.skipped_steps, stepped.nonfinite
        stepped.nonfinite = "skip"
        try:
            optimizer.step(**options | {"grad_scale": options.get("grad_scale", 1.0) / self._scale})
        finally:
            stepped.nonfinite = policy
        taken: bool = stepped.skipped_steps == before
        self._stepped = True
        self._found |= not taken
        self.skipped_steps += not taken
        return taken

    def update(self, new_scale: float | None = None) -> None:
        """After the steps of one backward pass: the next scale, or `new_scale`.

        Raises RuntimeError if no step was tried since the last update.
        """
        if not self._enabled:
            return
        if new_scale is not None:
            check_range("GradScaler", "init_scale", new_scale)
            self._scale = float(new_scale)
        elif not self._stepped:
            raise RuntimeError("GradScaler.update: call step(optimizer) first")
        elif self._found:
            self._scale *= self._backoff_factor
            self._growth_tracker = 0
        else:
            self._growth_tracker += 1
            if self._growth_tracker == self._growth_interval:
                grown = self._scale * self._growth_factor
                self._scale = grown if math.isfinite(grown) else self._scale
                self._growth_tracker = 0
        self._found = self._stepped = False

    def state_dict(self) -> dict[str, Any]:
        """PyTorch's keys, and `skipped_steps`; empty where disabled."""
        if not self._enabled:
            return {}
        return {
            "scale": self._scale,
            "growth_factor": self._growth_factor,
            "backoff_factor": self._backoff_factor,
            "growth_interval": self._growth_interval,
            "_growth_tracker": self._growth_tracker,
            "skipped_steps": self.skipped_steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict`, ours or torch.amp.GradScaler's.

        Raises ValueError, and changes nothing, where keys are missing or values out of range.
        """
        if not self._enabled:
            return
        keys = ("scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker")
        missing = [key for key in keys if key not in state]
        if missing:
            raise ValueError(f"GradScaler: the state dictionary lacks {missing}")
        self._set(*(state[key] for key in keys))
        self.skipped_steps = int(state.get("skipped_steps", 0))
