"""Normalisation, softmax and cross-entropy in float64, as the papers write them.

Sums over many elements are `math.fsum`, which rounds once. The reduction tree of csrc/base/tree.h
is here too, element by element.
"""

from __future__ import annotations

import math

import numpy as np

Array = np.ndarray

TREE_BLOCK, TREE_LANES = 4096, 16


def merge_pairwise(values: list[float]) -> float:
    """Neighbours first; an odd one waits a round."""
    while len(values) > 1:
        values = [sum(values[i : i + 2]) for i in range(0, len(values), 2)]
    return values[0]


def tree_sum(x: Array) -> float:
    blocks = []
    for start in range(0, x.size, TREE_BLOCK):
        lanes = [0.0] * TREE_LANES
        for i, value in enumerate(x.ravel()[start : start + TREE_BLOCK].tolist()):
            lanes[i % TREE_LANES] += value
        blocks.append(merge_pairwise(lanes))
    return merge_pairwise(blocks)


def rows_of(x: Array, axis: int) -> Array:
    """(C, n): one row per channel."""
    return np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1).astype(np.float64)


def like(rows: Array, x: Array, axis: int) -> Array:
    """The inverse of `rows_of`, with the shape of x."""
    moved = np.moveaxis(x, axis, 0).shape
    return np.moveaxis(rows.reshape(moved), 0, axis)


def sums(rows: Array) -> Array:
    return np.array([math.fsum(row) for row in rows])[:, None]


def normalise(rows: Array, eps: float) -> tuple[Array, Array, Array]:
    """xhat, mean, biased variance of each row (Ioffe & Szegedy 2015, algorithm 1)."""
    n = rows.shape[1]
    mean = sums(rows) / n
    var = sums((rows - mean) ** 2) / n
    return (rows - mean) / np.sqrt(var + eps), mean, var


def normalise_backward(dxhat: Array, rows: Array, eps: float) -> Array:
    """The chain rule of the same paper, section 3, step by step."""
    n = rows.shape[1]
    _, mean, var = normalise(rows, eps)
    dvar = sums(dxhat * (rows - mean)) * -0.5 * (var + eps) ** -1.5
    dmean = -sums(dxhat) / np.sqrt(var + eps) + dvar * sums(-2 * (rows - mean)) / n
    return dxhat / np.sqrt(var + eps) + dvar * 2 * (rows - mean) / n + dmean / n


def batch_norm(
    x: Array, gamma: Array, beta: Array, eps: float = 1e-5, axis: int = 1
) -> tuple[Array, Array, Array]:
    """y, mean (C,), biased variance (C,)."""
    xhat, mean, var = normalise(rows_of(x, axis), eps)
    return like(gamma[:, None] * xhat + beta[:, None], x, axis), mean[:, 0], var[:, 0]


def batch_norm_backward(
    dy: Array, x: Array, gamma: Array, eps: float = 1e-5, axis: int = 1
) -> tuple[Array, Array, Array]:
    g, rows = rows_of(dy, axis), rows_of(x, axis)
    xhat, _, _ = normalise(rows, eps)
    dx = normalise_backward(g * gamma[:, None], rows, eps)
    return like(dx, x, axis), sums(g * xhat)[:, 0], sums(g)[:, 0]


def layer_norm(x: Array, gamma: Array, beta: Array, eps: float = 1e-5) -> Array:
    """Ba, Kiros & Hinton 2016: each row of the last axis by its own mean and deviation."""
    xhat, _, _ = normalise(x.reshape(-1, x.shape[-1]).astype(np.float64), eps)
    return (gamma * xhat + beta).reshape(x.shape)


def layer_norm_backward(
    dy: Array, x: Array, gamma: Array, eps: float = 1e-5
) -> tuple[Array, Array, Array]:
    rows = x.reshape(-1, x.shape[-1]).astype(np.float64)
    g = dy.reshape(rows.shape).astype(np.float64)
    xhat, _, _ = normalise(rows, eps)
    dx = normalise_backward(g * gamma, rows, eps).reshape(x.shape)
    return dx, sums((g * xhat).T)[:, 0], sums(g.T)[:, 0]


def log_softmax(x: Array, axis: int = -1) -> Array:
    rows = np.moveaxis(x, axis, -1).astype(np.float64)
    shifted = rows - rows.max(-1, keepdims=True)
    total = np.apply_along_axis(lambda row: math.fsum(np.exp(row)), -1, shifted)
    return np.moveaxis(shifted - np.log(total)[..., None], -1, axis)


def softmax(x: Array, axis: int = -1) -> Array:
    return np.exp(log_softmax(x, axis))


def cross_entropy(
    logits: Array, target: Array, label_smoothing: float = 0.0
) -> tuple[Array, Array]:
    """Loss of each row and its gradient: -sum q log p and p - q, q the smoothed one-hot label."""
    classes = logits.shape[1]
    q = np.full(logits.shape, label_smoothing / classes)
    q[np.arange(len(target)), target] += 1 - label_smoothing
    log_p = log_softmax(logits)
    return -(q * log_p).sum(1), np.exp(log_p) - q
