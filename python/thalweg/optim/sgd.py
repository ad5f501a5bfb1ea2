"""Gradient descent, with momentum in the forms that the literature has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from .base import Optimizer
from .memory import Array
from .options import Around, Group, Parameters, own_options

if TYPE_CHECKING:
    from typing_extensions import Unpack

# (nesterov, momentum_form) -> number of the form in csrc/rules/optim_common.h
_FORMS = {
    (False, "buffer"): 0,
    (True, "buffer"): 1,
    (False, "velocity"): 2,
    (False, "average"): 3,
    ("interim", "buffer"): 4,
}


class SGD(Optimizer):
    """Gradient descent `p -= lr*g`, with momentum `mu` in one of five forms.

    - default: `v = mu*v + (1-dampening)*g ; p -= lr*v`, `v = g` at the first step (Polyak 1964);
    - `nesterov=True`: `v = mu*v + g ; p -= lr*(g + mu*v)` (Bengio et al. 2012);
    - `nesterov="interim"`: `v = mu*v - lr*g ; p += v` with g taken at the look-ahead point
      `p + mu*v`, where the parameters rest during training; see `at_iterate` and `finalize`
      (Nesterov 1983, Sutskever et al. 2013; Goodfellow et al. 2016, Alg. 8.3);
    - `momentum_form="velocity"`: `v = mu*v - lr*g ; p += v` (Goodfellow et al. 2016, Alg. 8.2),
      which differs from the default once lr changes;
    - `momentum_form="average"`: `v = mu*v - (1-mu)*lr*g ; p += v` (Duda, Hart & Stork 2000, ch. 6).

    `decoupled` makes weight decay `p *= 1-lr*weight_decay` instead of L2.

    >>> p = np.array([1.0])
    >>> opt = SGD([p], lr=0.1, momentum=0.5)
    >>> for _ in range(2):
    ...     opt.step([np.array([2.0])])
    >>> p.round(6)
    array([0.5])
    """

    def __init__(
        self,
        params: Parameters,
        lr: float,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool | Literal["interim"] = False,
        *,
        momentum_form: Literal["buffer", "velocity", "average"] = "buffer",
        decoupled: bool = False,
        **around: Unpack[Around],
    ) -> None:
        super().__init__(params, own_options(locals()), **around)

    def rule(self, group: Group) -> str:
        return "momentum" if group["momentum"] else "sgd"

    def check(self, group: Group) -> None:
        form = (group["nesterov"], group["momentum_form"])
        if form not in _FORMS:
            raise ValueError(
                f"SGD: no such momentum: nesterov={form[0]!r} with momentum_form={form[1]!r}; "
                "nesterov is False, True or 'interim', or momentum_form 'velocity' or 'average'"
            )
        super().check(group)
        if _FORMS[form] and group["dampening"]:
            raise ValueError("SGD: dampening must be 0 unless momentum has its default form")
        if form[0] == "interim" and self.state_dtype is not None:
            raise ValueError(
                "SGD: nesterov='interim' steps back by its momentum, not by 8 bits of it"
            )
        if group["nesterov"] and not group["momentum"]:
            raise ValueError("SGD: nesterov needs momentum > 0, got momentum 0")

    def kernel_options(self, group: Group) -> dict[str, Any]:
        form = _FORMS[group["nesterov"], group["momentum_form"]]
        return super().kernel_options(group) | {"form": form, "decoupled": group["decoupled"]}

    def _iterates(self) -> list[Array]:
        """The parameters with interim groups stepped back from the look-ahead point."""
        values = []
        for group, slots in zip(self.param_groups, self._slots, strict=True):
            velocity = slots.states["momentum_buffer"] if group["nesterov"] == "interim" else None
            for i, view in enumerate(slots.views):
                values.append(view if velocity is None else view - group["momentum"] * velocity[i])
        return values

    @contextmanager
    def at_iterate(self) -> Iterator[None]:
        """Inside the context, evaluate at `p` and not at the look-ahead point `p + mu*v`."""
        self._refresh()
        with self._holding(self._iterates()):
            yield

    def finalize(self) -> None:
        """Step back from the look-ahead point for good; the momentum starts anew after it."""
        self._refresh()
        self._write(self._iterates())
        for group, slots in zip(self.param_groups, self._slots, strict=True):
            if group["nesterov"] == "interim":
                for velocity in slots.states["momentum_buffer"]:
                    velocity.fill(0)
