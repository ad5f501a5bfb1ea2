"""What a rule says about itself, and its hyperparameters as compiled code reads them."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _core
from .options import RANGES, Group, check_pair, check_range

_PAIRS = {
    "betas": ("beta1", "beta2"),
    "etas": ("eta_minus", "eta_plus"),
    "step_sizes": ("step_min", "step_max"),
}


class Hyperparameters:
    """The part of an optimizer that knows its options: which rule, which values, which ranges."""

    max_norm: float | None
    clip_value: float | None
    ema_decay: float | None
    param_groups: list[Group]
    _name: str

    def __init__(self) -> None:
        self._block = np.empty((0, len(_core.HYPER_FIELDS)))  # of all steps: a replay reads it too
        self._seen: list[Any] = []  # the groups' options that are in it

    def rule(self, group: Group) -> str:
        """Name of the compiled rule that serves `group`."""
        raise NotImplementedError

    def kernel_options(self, group: Group) -> dict[str, Any]:
        """The group's options under the names of `_core.HYPER_FIELDS`; others are ignored."""
        options = dict(group)
        options["decoupled"] = group.get("decoupled_weight_decay", False)
        for pair, names in _PAIRS.items():
            if pair in group:
                options.update(zip(names, group[pair], strict=True))
        return options

    def check(self, group: Group) -> None:
        """Raise ValueError or TypeError unless the group's options are valid."""
        for pair in _PAIRS:
            if pair in group:
                check_pair(self._name, pair, group[pair])
        for name, value in self.kernel_options(group).items():
            if name in RANGES and name != "lr_scale":
                check_range(self._name, name, value)

    def initial_state(self, name: str, group: Group, lr_scale: float) -> float:
        """What state `name` is before the first step."""
        return 0.0

    def _check_stages(self) -> None:
        for name in ("max_norm", "clip_value", "ema_decay"):
            value = getattr(self, name)
            if value is not None:
                check_range(self._name, name, value)

    def _fill_block(self) -> None:
        if len(self._block) != len(self.param_groups):
            self._block = np.empty((len(self.param_groups), len(_core.HYPER_FIELDS)))
        for row, group in zip(self._block, self.param_groups, strict=True):
            options = self.kernel_options(group)
            row[:] = [options.get(field, 0.0) for field in _core.HYPER_FIELDS]
