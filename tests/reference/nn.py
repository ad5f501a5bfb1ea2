"""Layers and losses in float64, each from its definition: no fusion, no shortcuts, loops allowed.

The activations are evaluated with Python's `math`, an implementation that shares nothing with ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

Array = np.ndarray


def each(f: Callable[[float], float]) -> Callable[[Array], Array]:
    """A function of a number as a function of every element."""

    def mapped(x: Array) -> Array:
        values = [f(float(v)) for v in np.asarray(x, np.float64).ravel()]
        return np.array(values, np.float64).reshape(np.shape(x))

    return mapped


sigmoid = each(lambda v: 1 / (1 + math.exp(-v)) if v >= 0 else math.exp(v) / (1 + math.exp(v)))
tanh = each(math.tanh)
relu = each(lambda v: v if v > 0 else 0.0)
softplus = each(lambda v: max(v, 0) + math.log1p(math.exp(-abs(v))))
gelu = each(lambda v: v * 0.5 * math.erfc(-v / math.sqrt(2)))
erf = each(math.erf)


def leaky_relu(x: Array, slope: float) -> Array:
    return each(lambda v: v if v > 0 else slope * v)(x)


def softmax(x: Array, axis: int = -1) -> Array:
    powers = each(math.exp)(x)
    return powers / powers.sum(axis, keepdims=True)


def log_softmax(x: Array, axis: int = -1) -> Array:
    return each(math.log)(softmax(x, axis))


def norm(x: Array) -> float:
    return math.sqrt(math.fsum(float(v) ** 2 for v in x.ravel()))


def linear(x: Array, weight: Array, bias: Array) -> Array:
    return np.einsum("...i,oi->...o", x, weight) + bias


def block_linear(x: Array, weight: Array, bias: Array) -> Array:
    """As one product with the block-diagonal matrix written out."""
    groups, outputs, inputs = weight.shape
    full = np.zeros((groups * outputs, groups * inputs))
    for g in range(groups):
        full[g * outputs : (g + 1) * outputs, g * inputs : (g + 1) * inputs] = weight[g]
    return linear(x, full, bias)


def batch_norm(x: Array, gamma: Array, beta: Array, eps: float, axis: int = 1) -> Array:
    """Ioffe & Szegedy 2015, algorithm 1, channel by channel."""
    y = np.empty_like(x)
    for c in range(x.shape[axis]):
        at = (slice(None),) * (axis % x.ndim) + (c,)
        values = x[at]
        mu = math.fsum(values.ravel()) / values.size
        variance = math.fsum((values.ravel() - mu) ** 2) / values.size
        y[at] = gamma[c] * (values - mu) / math.sqrt(variance + eps) + beta[c]
    return y


def batch_norm_gradients(
    dy: Array, x: Array, gamma: Array, eps: float
) -> tuple[Array, Array, Array]:
    """dx, dgamma, dbeta of (N, C) by the chain rule of the paper, section 3, step by step."""
    n = x.shape[0]
    mu, variance = x.mean(0), x.var(0)
    deviation = x - mu
    rstd = 1 / np.sqrt(variance + eps)
    dxhat = dy * gamma
    dvariance = (dxhat * deviation * -0.5 * rstd**3).sum(0)
    dmu = (-dxhat * rstd).sum(0) + dvariance * (-2 * deviation).mean(0)
    dx = dxhat * rstd + dvariance * 2 * deviation / n + dmu / n
    return dx, (dy * deviation * rstd).sum(0), dy.sum(0)


def layer_norm(x: Array, gamma: Array, beta: Array, eps: float) -> Array:
    """Batch normalisation of the transposed matrix, with the parameters of each column."""
    rows = x.reshape(-1, x.shape[-1])
    ones = np.ones(rows.shape[0])
    return (batch_norm(rows.T.copy(), ones, 0 * ones, eps).T * gamma + beta).reshape(x.shape)


def mse(x: Array, target: Array) -> Array:
    return (x - target) ** 2


def huber(x: Array, target: Array, delta: float) -> Array:
    e = abs(x - target)
    return np.where(e <= delta, e * e / 2, delta * (e - delta / 2))


def bce_with_logits(x: Array, target: Array, pos_weight: float) -> Array:
    p = sigmoid(x)
    return -(pos_weight * target * each(math.log)(p) + (1 - target) * each(math.log)(1 - p))


def nll(log_p: Array, target: Array) -> Array:
    return np.array([-log_p[i, t] for i, t in enumerate(target)])


def cross_entropy(logits: Array, target: Array, smoothing: float = 0.0) -> Array:
    """-sum_c q_c log p_c, with q the smoothed one-hot distribution."""
    q = np.full(logits.shape, smoothing / logits.shape[1])
    q[np.arange(len(target)), target] += 1 - smoothing
    return -(q * log_softmax(logits)).sum(1)


REDUCE: dict[str, Callable[[Array], Array]] = {
    "none": lambda loss: loss,
    "sum": np.sum,
    "mean": np.mean,
    "batchmean": lambda loss: loss.sum() / len(loss),
}
