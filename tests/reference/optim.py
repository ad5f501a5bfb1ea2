"""Update rules in float64, straight from the papers; written for reading, without the package.

A rule is `rule(p, g, s, t, **options) -> p`: p and g are float64 arrays, `s` is a dictionary that
keeps the rule's state from call to call (empty at first), `t` the step counted from 1. Weight decay
and direction are `update`'s business, clipping is `clip_by_norm`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]
State = dict[str, Any]


def sgd(
    p: Array,
    g: Array,
    s: State,
    t: int,
    *,
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    nesterov: bool | str = False,
    momentum_form: str = "buffer",
) -> Array:
    """Robbins & Monro 1951; Polyak 1964; Bengio 2012; Goodfellow 2016 Alg. 8.2; Duda 2000 ch. 6."""
    v = s.get("v", np.zeros_like(p))
    if momentum == 0:
        return p - lr * g
    if momentum_form == "velocity":
        s["v"] = momentum * v - lr * g
        return p + s["v"]
    if momentum_form == "average":
        s["v"] = momentum * v + (1 - momentum) * (-lr * g)
        return p + s["v"]
    if nesterov == "interim":
        # p is the look-ahead point; the iterate is p - mu*v (Goodfellow et al. 2016, Alg. 8.3).
        iterate = p - momentum * v
        s["v"] = momentum * v - lr * g
        return iterate + s["v"] + momentum * s["v"]
    s["v"] = g if t == 1 else momentum * v + (1 - dampening) * g
    return p - lr * (g + momentum * s["v"] if nesterov else s["v"])


def adagrad(
    p: Array,
    g: Array,
    s: State,
    t: int,
    *,
    lr: float = 1e-2,
    lr_decay: float = 0.0,
    initial_accumulator_value: float = 0.0,
    eps: float = 1e-10,
) -> Array:
    """Duchi, Hazan & Singer 2011."""
    s["r"] = s.get("r", initial_accumulator_value) + g * g
    return p - lr / (1 + (t - 1) * lr_decay) * g / (np.sqrt(s["r"]) + eps)


def adadelta(
    p: Array,
    g: Array,
    s: State,
    t: int,
    *,
    lr: float = 1.0,
    rho: float = 0.9,
    eps: float = 1e-6,
) -> Array:
    """Zeiler 2012, Alg. 1."""
    s["r"] = rho * s.get("r", 0.0) + (1 - rho) * g**2
    d = np.sqrt(s.get("s", 0.0) + eps) / np.sqrt(s["r"] + eps) * g
    s["s"] = rho * s.get("s", 0.0) + (1 - rho) * d**2
    return p - lr * d


def rmsprop(
    p: Array,
    g: Array,
    s: State,
    t: int,
    *,
    lr: float = 1e-2,
    alpha: float = 0.99,
    eps: float = 1e-8,
    momentum: float = 0.0,
    centered: bool = False,
    eps_inside: bool = False,
) -> Array:
    """Hinton 2012; Graves 2013 (centered); Goodfellow et al. 2016, Alg. 8.5 (eps inside)."""
    s["r"] = alpha * s.get("r", 0.0) + (1 - alpha) * g**2
    variance = s["r"]
    if centered:
        s["c"] = alpha * s.get("c", 0.0) + (1 - alpha) * g
        variance = s["r"] - s["c"] ** 2
    root = np.sqrt(variance + eps) if eps_inside else np.sqrt(variance) + eps
    if momentum:
        s["b"] = momentum * s.get("b", 0.0) + g / root
        return p - lr * s["b"]
    return p - lr * g / root


def adam(
    p: Array,
    g: Array,
    s: State,
    t: int,
    *,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    amsgrad: bool = False,
) -> Array:
    """Kingma & Ba 2015, Alg. 1; Reddi, Kale & Kumar 2018 (amsgrad, on the uncorrected v)."""
    b1, b2 = betas
    s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
    s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g**2
    v = s["v"]
    if amsgrad:
        v = s["vmax"] = np.maximum(s.get("vmax", 0.0), v)
    return p - lr * (s["m"] / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)


def adamax(
    p: Array,
    g: Array,
    s: State,
    t: int,
    *,
    lr: float = 2e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> Array:
    """Kingma & Ba 2015, Alg. 2, with eps where PyTorch has it."""
    b1, b2 = betas
    s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
    s["u"] = np.maximum(b2 * s.get("u", 0.0), np.abs(g) + eps)
    return p - lr / (1 - b1**t) * s["m"] / s["u"]


def nadam(
    p: Array,
    g: Array,
    s: State,
    t: int,
    *,
    lr: float = 2e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    momentum_decay: float = 4e-3,
) -> Array:
    """Dozat 2016 in PyTorch's form; the product of the mu is formed anew at every step."""
    b1, b2 = betas
    mu = [b1 * (1 - 0.5 * 0.96 ** (i * momentum_decay)) for i in range(1, t + 2)]
    s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
    s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g**2
    product, next_product = np.prod(mu[:-1]), np.prod(mu)
    direction = mu[-1] * s["m"] / (1 - next_product) + (1 - mu[-2]) * g / (1 - product)
    return p - lr / (np.sqrt(s["v"] / (1 - b2**t)) + eps) * direction


def radam(
    p: Array,
    g: Array,
    s: State,
    t: int,
    *,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> Array:
    """Liu et al. 2020, Alg. 2."""
    b1, b2 = betas
    s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
    s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g**2
    mhat = s["m"] / (1 - b1**t)
    rho_inf = 2 / (1 - b2) - 1
    rho = rho_inf - 2 * t * b2**t / (1 - b2**t)
    if rho <= 5:
        return p - lr * mhat
    r = np.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
    return p - lr * mhat * r * np.sqrt(1 - b2**t) / (np.sqrt(s["v"]) + eps)


def rprop(
    p: Array,
    g: Array,
    s: State,
    t: int,
    *,
    lr: float = 1e-2,
    etas: tuple[float, float] = (0.5, 1.2),
    step_sizes: tuple[float, float] = (1e-6, 50.0),
) -> Array:
    """Riedmiller & Braun 1993, the variant that forgets the gradient where its sign flips."""
    size = s.get("size", np.full_like(p, lr))
    agreement = np.sign(g * s.get("g", np.zeros_like(p)))
    size = np.where(agreement > 0, size * etas[1], np.where(agreement < 0, size * etas[0], size))
    s["size"] = np.clip(size, *step_sizes)
    s["g"] = np.where(agreement < 0, 0.0, g)
    return p - s["size"] * np.sign(s["g"])


def lion(
    p: Array,
    g: Array,
    s: State,
    t: int,
    *,
    lr: float = 1e-4,
    betas: tuple[float, float] = (0.9, 0.99),
) -> Array:
    """Chen et al. 2023, Program 1; the decay lr*weight_decay*p is decoupled."""
    b1, b2 = betas
    m = s.get("m", 0.0)
    s["m"] = b2 * m + (1 - b2) * g
    return p - lr * np.sign(b1 * m + (1 - b1) * g)


def lars(
    p: Array,
    g: Array,
    s: State,
    t: int,
    *,
    lr: float,
    momentum: float = 0.9,
    trust_coefficient: float = 1e-3,
    eps: float = 1e-8,
    decay: float = 0.0,
) -> Array:
    """You, Gitman & Ginsburg 2017, Alg. 1."""
    norm_p, norm_g = np.linalg.norm(p), np.linalg.norm(g)
    q = trust_coefficient * norm_p / (norm_g + decay * norm_p + eps) if norm_p * norm_g else 1.0
    s["v"] = momentum * s.get("v", 0.0) + lr * q * (g + decay * p)
    return p - s["v"]


def lamb(
    p: Array,
    g: Array,
    s: State,
    t: int,
    *,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-6,
    decay: float = 0.0,
) -> Array:
    """You et al. 2020, Alg. 2, with bias corrections and without bounds on the norm."""
    b1, b2 = betas
    s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
    s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g**2
    u = (s["m"] / (1 - b1**t)) / (np.sqrt(s["v"] / (1 - b2**t)) + eps) + decay * p
    norm_p, norm_u = np.linalg.norm(p), np.linalg.norm(u)
    return p - lr * (norm_p / norm_u if norm_p * norm_u else 1.0) * u


def update(
    rule: Callable[..., Array],
    p: Array,
    g: Array,
    s: State,
    t: int,
    *,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    decays_itself: bool = False,
    maximize: bool = False,
    **options: Any,
) -> Array:
    """`rule` with its surroundings: direction, then decay of the gradient or of the parameter."""
    g = -g if maximize else g
    if decays_itself:
        options["decay"] = weight_decay
    elif decoupled:
        p = p - options["lr"] * weight_decay * p
    else:
        g = g + weight_decay * p
    return rule(p, g, s, t, **options)


def clip_by_norm(grads: Sequence[Array], max_norm: float) -> list[Array]:
    """Pascanu, Mikolov & Bengio 2013: all gradients shrink together to the norm `max_norm`."""
    norm = np.sqrt(sum(np.sum(g**2) for g in grads))
    return [g * (max_norm / norm) if norm > max_norm else g for g in grads]
