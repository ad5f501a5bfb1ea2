"""Adaptive update rules: formula, options and source. Arithmetic: csrc/rules/optim_adaptive.h.

In every formula `p` is the parameter, `g` its gradient (scaled, clipped, plus `weight_decay * p`),
`t` the step counted from 1. Every class also takes the keyword arguments of `Optimizer`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .base import Optimizer
from .options import Around, Group, Parameters, own_options

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Adagrad(Optimizer):
    """Adagrad: each weight's rate falls with the sum of its squared gradients.

    `r += g*g ; p -= lr/(1+(t-1)*lr_decay) * g/(sqrt(r)+eps)`; r starts at
    `initial_accumulator_value`. Duchi, Hazan & Singer 2011.

    >>> p = np.array([1.0, 1.0])
    >>> Adagrad([p], lr=0.5).step([np.array([3.0, -0.1])])
    >>> p.round(6)
    array([0.5, 1.5])
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        **around: Unpack[Around],
    ) -> None:
        super().__init__(params, own_options(locals()), **around)

    def rule(self, group: Group) -> str:
        return "adagrad"

    def initial_state(self, name: str, group: Group, lr_scale: float) -> float:
        return float(group["initial_accumulator_value"])


class Adadelta(Optimizer):
    """Adadelta: steps in the units of the parameter, from two running means of squares.

    `r = rho*r+(1-rho)*g² ; d = sqrt(s+eps)/sqrt(r+eps)*g ; s = rho*s+(1-rho)*d² ; p -= lr*d`.
    Zeiler 2012, arXiv:1212.5701.

    >>> p = np.array([1.0])
    >>> Adadelta([p], rho=0.75, eps=0.01).step([np.array([1.0])])
    >>> p.round(6)
    array([0.803884])
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        **around: Unpack[Around],
    ) -> None:
        super().__init__(params, own_options(locals()), **around)

    def rule(self, group: Group) -> str:
        return "adadelta"


class RMSprop(Optimizer):
    """RMSprop: gradients divided by the root of their running mean square.

    `r = alpha*r+(1-alpha)*g² ; p -= lr*g/(sqrt(r)+eps)`. With `eps_inside` the root is
    `sqrt(r+eps)`; with `centered` it is taken of `r-c²`, `c = alpha*c+(1-alpha)*g`; with
    `momentum`, `b = momentum*b + g/root ; p -= lr*b`. Hinton 2012 (alpha 0.9), Graves 2013
    (centered), Goodfellow et al. 2016, Alg. 8.5 (`eps_inside`, eps 1e-6).

    >>> p = np.array([1.0])
    >>> RMSprop([p], lr=0.1, alpha=0.75).step([np.array([4.0])])
    >>> p.round(6)
    array([0.8])
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        eps_inside: bool = False,
        **around: Unpack[Around],
    ) -> None:
        super().__init__(params, own_options(locals()), **around)

    def rule(self, group: Group) -> str:
        centered = "_centered" if group["centered"] else ""
        return "rmsprop" + centered + ("_momentum" if group["momentum"] else "")

    def kernel_options(self, group: Group) -> dict[str, Any]:
        return super().kernel_options(group) | {"rho": group["alpha"]}


class Adam(Optimizer):
    """Adam: running means of the gradient and of its square, both corrected for their start.

    `m = beta1*m+(1-beta1)*g ; v = beta2*v+(1-beta2)*g² ;
    p -= lr * (m/(1-beta1^t)) / (sqrt(v/(1-beta2^t)) + eps)`; with `amsgrad`, `max(vmax, v)` takes
    v's place in the root; with `decoupled_weight_decay`, `p *= 1-lr*weight_decay` instead of L2.
    Kingma & Ba 2015, arXiv:1412.6980, Alg. 1; Reddi et al. 2018 (AMSGrad).

    >>> p = np.array([1.0, 1.0])
    >>> Adam([p], lr=0.1).step([np.array([3.0, -0.1])])
    >>> p.round(6)
    array([0.9, 1.1])
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        decoupled_weight_decay: bool = False,
        **around: Unpack[Around],
    ) -> None:
        super().__init__(params, own_options(locals()), **around)

    def rule(self, group: Group) -> str:
        return "adam_amsgrad" if group["amsgrad"] else "adam"


class AdamW(Adam):
    """Adam with decoupled weight decay: `p *= 1-lr*weight_decay` before Adam's step.

    Loshchilov & Hutter 2019, arXiv:1711.05101.

    >>> p = np.array([1.0])
    >>> AdamW([p], lr=0.1, weight_decay=0.5).step([np.array([3.0])])
    >>> p.round(6)
    array([0.85])
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        **around: Unpack[Around],
    ) -> None:
        super().__init__(
            params, lr, betas, eps, weight_decay, amsgrad, decoupled_weight_decay=True, **around
        )


class Adamax(Optimizer):
    """Adamax: Adam with the infinity norm of past gradients in the denominator.

    `m = beta1*m+(1-beta1)*g ; u = max(beta2*u, |g|+eps) ; p -= lr/(1-beta1^t) * m/u`.
    Kingma & Ba 2015, arXiv:1412.6980, Alg. 2.

    >>> p = np.array([1.0, 1.0])
    >>> Adamax([p], lr=0.1).step([np.array([3.0, -0.1])])
    >>> p.round(6)
    array([0.9, 1.1])
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        **around: Unpack[Around],
    ) -> None:
        super().__init__(params, own_options(locals()), **around)

    def rule(self, group: Group) -> str:
        return "adamax"


class NAdam(Optimizer):
    """NAdam: Adam with Nesterov's momentum under a warming schedule of momentum.

    `mu_t = beta1*(1-0.5*0.96^(t*momentum_decay)) ; P_t = mu_1*…*mu_t`; m, v as in Adam;
    `p -= lr/(sqrt(v/(1-beta2^t))+eps) * (mu_{t+1}*m/(1-P_{t+1}) + (1-mu_t)*g/(1-P_t))`.
    Dozat 2016.

    >>> p = np.array([1.0])
    >>> NAdam([p], lr=0.1).step([np.array([3.0])])
    >>> bool(p < 1)
    True
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        **around: Unpack[Around],
    ) -> None:
        super().__init__(params, own_options(locals()), **around)

    def rule(self, group: Group) -> str:
        return "nadam"


class RAdam(Optimizer):
    """RAdam: Adam whose adaptive rate is rectified, and left out while its variance is unknown.

    `rho_inf = 2/(1-beta2)-1 ; rho = rho_inf - 2t*beta2^t/(1-beta2^t) ; mhat = m/(1-beta1^t)`;
    `p -= lr*mhat*r*sqrt(1-beta2^t)/(sqrt(v)+eps)` where rho > 5, else `p -= lr*mhat`;
    `r = sqrt((rho-4)(rho-2)rho_inf / ((rho_inf-4)(rho_inf-2)rho))`.
    Liu et al. 2020, arXiv:1908.03265.

    >>> p = np.array([1.0])
    >>> RAdam([p], lr=0.1).step([np.array([3.0])])
    >>> p.round(6)
    array([0.7])
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = False,
        **around: Unpack[Around],
    ) -> None:
        super().__init__(params, own_options(locals()), **around)

    def rule(self, group: Group) -> str:
        return "radam"
