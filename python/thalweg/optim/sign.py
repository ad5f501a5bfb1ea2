"""Update rules that use the sign of the gradient and not its size: Rprop and Lion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .base import Optimizer
from .options import Around, Group, Parameters, own_options

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Rprop(Optimizer):
    """Resilient propagation: every weight has a step size of its own. For full batches.

    The size, at first `lr`, grows by `etas[1]` while the sign of g is steady and shrinks by
    `etas[0]` when it flips (and then g counts as 0), within `step_sizes`; `p -= size*sign(g)`.
    Riedmiller & Braun 1993.

    >>> p = np.array([1.0, 1.0])
    >>> opt = Rprop([p], lr=0.1)
    >>> for g in ([3.0, -0.1], [2.0, -9.0], [-1.0, -5.0]):
    ...     opt.step([np.array(g)])
    >>> p.round(6)
    array([0.78 , 1.364])
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50.0),
        **around: Unpack[Around],
    ) -> None:
        super().__init__(params, own_options(locals()), **around)

    def rule(self, group: Group) -> str:
        return "rprop"

    def initial_state(self, name: str, group: Group, lr_scale: float) -> float:
        return float(group["lr"]) * lr_scale if name == "step_size" else 0.0


class Lion(Optimizer):
    """Lion: the sign of an interpolated momentum, with decoupled decay.

    `c = beta1*m+(1-beta1)*g ; p -= lr*(sign(c)+weight_decay*p) ; m = beta2*m+(1-beta2)*g`.
    Rates are usually 3 to 10 times smaller than Adam's, decays larger by as much.
    Chen et al. 2023, arXiv:2302.06675.

    >>> p = np.array([1.0, 1.0])
    >>> Lion([p], lr=0.1).step([np.array([3.0, -0.1])])
    >>> p.round(6)
    array([0.9, 1.1])
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        **around: Unpack[Around],
    ) -> None:
        super().__init__(params, own_options(locals()), **around)

    def rule(self, group: Group) -> str:
        return "lion"

    def kernel_options(self, group: Group) -> dict[str, Any]:
        return super().kernel_options(group) | {"decoupled": True}
