"""Where gradients come from: given by order or by name, or the parameters' own `.grad`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .options import Group
from .slots import Slots


class Gradients:
    """The part of an optimizer that finds and drops gradients."""

    param_groups: list[Group]
    _name: str
    _slots: list[Slots]

    def _gradients(self, grads: Any) -> list[list[Any]]:
        """Gradients by group, in the order of the parameters."""
        if grads is None:
            try:
                return [slots.gradients() for slots in self._slots]
            except AttributeError:
                raise ValueError(
                    f"{self._name}: parameters that are plain arrays have no .grad; pass grads="
                ) from None
        if isinstance(grads, Mapping):
            grads = self._by_name(grads)
        grads = list(grads)
        count = sum(len(slots.owners) for slots in self._slots)
        if len(grads) != count:
            raise ValueError(f"{self._name}: expected {count} gradients, got {len(grads)}")
        rest = iter(grads)
        return [[next(rest) for _ in slots.owners] for slots in self._slots]

    def _by_name(self, grads: Mapping[str, Any]) -> list[Any]:
        names = [name for group in self.param_groups for name in group.get("param_names", ())]
        if grads.keys() != set(names):
            different = sorted(map(str, grads.keys() ^ set(names)))
            raise ValueError(f"{self._name}: gradients and parameters differ in names: {different}")
        return [grads[name] for name in names]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the parameters' `.grad`s, or fill them with zeros."""
        for slots in self._slots:
            for owner in slots.owners:
                grad = getattr(owner, "grad", None)
                if grad is not None and set_to_none:
                    owner.grad = None
                elif grad is not None:
                    grad.zero_()
