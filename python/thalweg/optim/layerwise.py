"""Update rules whose rate follows the norms of each tensor, for large batches: LARS and LAMB."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .base import Optimizer
from .options import Around, Group, Parameters, check_range, own_options

if TYPE_CHECKING:
    from typing_extensions import Unpack


class _Layerwise(Optimizer):
    """The ratio of norms takes the decay in, so the rule and not the loop decays."""

    def kernel_options(self, group: Group) -> dict[str, Any]:
        options = super().kernel_options(group)
        return options | {"rule_decay": group["weight_decay"], "weight_decay": 0.0}

    def check(self, group: Group) -> None:
        super().check(group)
        check_range(self._name, "weight_decay", group["weight_decay"])


class LARS(_Layerwise):
    """LARS: momentum whose rate is, tensor by tensor, in proportion to norm(p)/norm(g).

    `q = trust_coefficient*norm(p) / (norm(g) + weight_decay*norm(p) + eps)`, 1 where a norm is 0;
    `v = momentum*v + lr*q*(g + weight_decay*p) ; p -= v`. Biases and normalisation's gamma and
    beta usually go into a group of an optimizer without the ratio.
    You, Gitman & Ginsburg 2017, arXiv:1708.03888.

    >>> p = np.array([3.0, 4.0])
    >>> LARS([p], lr=10.0, trust_coefficient=0.01).step([np.array([0.0, 2.0])])
    >>> p.round(6)
    array([3. , 3.5])
    """

    def __init__(
        self,
        params: Parameters,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 1e-3,
        eps: float = 1e-8,
        **around: Unpack[Around],
    ) -> None:
        super().__init__(params, own_options(locals()), **around)

    def rule(self, group: Group) -> str:
        return "lars"

    def kernel_options(self, group: Group) -> dict[str, Any]:
        return super().kernel_options(group) | {"trust": group["trust_coefficient"]}


class LAMB(_Layerwise):
    """LAMB: Adam's direction, its length set by the norm of the parameter.

    m, v as in Adam; `u = (m/(1-beta1^t)) / (sqrt(v/(1-beta2^t)) + eps) + weight_decay*p ;
    p -= lr * norm(p)/norm(u) * u`, the ratio 1 where a norm is 0.
    You et al. 2020, arXiv:1904.00962, Alg. 2 with the identity for its phi.

    >>> p = np.array([3.0, 4.0])
    >>> LAMB([p], lr=0.1).step([np.array([0.0, 2.0])])
    >>> p.round(6)
    array([3. , 3.5])
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        **around: Unpack[Around],
    ) -> None:
        super().__init__(params, own_options(locals()), **around)

    def rule(self, group: Group) -> str:
        return "lamb"
