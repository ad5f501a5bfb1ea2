"""Gradients: given by order or by name, or the parameters' own `.grad`; their norm."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate, chain, pairwise
from typing import Any

from .. import _core
from ..recording import refuse_reading
from ..tensor import Tensor
from .options import Group
from .slots import Slots


class Gradients:
    """The part of an optimizer that finds, measures and drops gradients."""

    last_grad_norm: float | None
    param_groups: list[Group]
    _name: str
    _slots: list[Slots]
    _native: _core.FusedOptimizer

    def _refresh(self) -> None:
        raise NotImplementedError

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
        ends = list(accumulate(len(slots.owners) for slots in self._slots))
        return [grads[begin:end] for begin, end in pairwise([0, *ends])]

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
                if isinstance(owner, Tensor) and set_to_none:
                    owner.grad = None  # whatever it is: a replay may find another one
                    continue
                grad = getattr(owner, "grad", None)
                if grad is not None and set_to_none:
                    owner.grad = None
                elif grad is not None:
                    grad.zero_()

    def _describe(self, index: int) -> str:
        """Parameter `index`, counted over all groups, for a message."""
        names = [
            group.get("param_names", [None] * len(group["params"])) for group in self.param_groups
        ]
        name = list(chain.from_iterable(names))[index]
        return f"parameter {index}" + (f" ({name})" if name is not None else "")

    def grad_norm(self, grads: Any = None, grad_scale: float = 1.0) -> float:
        """Euclidean norm of all gradients together, each times `grad_scale`."""
        refuse_reading("Optimizer.grad_norm")
        self._refresh()
        self.last_grad_norm = self._native.grad_norm(self._gradients(grads), grad_scale=grad_scale)
        return self.last_grad_norm

    def converged(self, threshold: float) -> bool:
        """Whether the gradient norm that was measured last is below `threshold`.

        Raises RuntimeError where the last step measured none: construct with `max_norm`
        (`math.inf` does not clip) or call `grad_norm()` before.
        """
        if self.last_grad_norm is None:
            raise RuntimeError(
                f"{self._name}: no gradient norm was measured; construct with max_norm=math.inf "
                "or call grad_norm() first"
            )
        return self.last_grad_norm < threshold
