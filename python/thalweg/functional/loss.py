"""Losses, each with `reduction`:

"mean" over everything, "sum", "none" (elementwise, or per sample for class targets), and for
elementwise losses "batchmean": summed over outputs, averaged over samples, the textbooks' form.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from .. import _core
from ..autograd import is_grad_enabled
from ..backend import Array, ArrayLike
from ..variable import Variable, array_of, data_of, record
from .activation import softplus
from .differentiate import differentiate
from .elementwise import abs, add, div, minimum, mul, neg, square, sub
from .reduction import log_softmax, mean
from .shape import index, reshape, sum

T = TypeVar("T")

_LABELS = (np.dtype(np.int32), np.dtype(np.int64))  # what compiled operations take

REDUCTIONS = ("mean", "sum", "none", "batchmean")


def check_reduction(name: str, reduction: str, allowed: tuple[str, ...] = REDUCTIONS) -> None:
    if reduction not in allowed:
        raise ValueError(
            f"{name}: reduction must be one of {', '.join(allowed)}, got {reduction!r}"
        )


def _reduce(name: str, loss: T, reduction: str) -> T:
    check_reduction(name, reduction)
    if reduction == "none":
        return loss
    if reduction == "sum":
        return sum(loss)
    shape = array_of(loss).shape
    if 0 in shape or (reduction == "batchmean" and not shape):
        raise ValueError(f"{name}: cannot average over shape {shape}")
    return mean(loss) if reduction == "mean" else div(sum(loss), shape[0])


def _check_same_shape(name: str, x: Any, target: Any) -> None:
    shape, expected = array_of(target).shape, array_of(x).shape
    if shape != expected:
        raise ValueError(f"{name}: target must have the shape of the input {expected}, got {shape}")


def mse_loss(x: T, target: Any, *, reduction: str = "mean") -> T:
    """(x - target)**2, averaged over all elements by default."""
    _check_same_shape("mse_loss", x, target)
    return _reduce("mse_loss", square(sub(x, target)), reduction)


def huber_loss(x: T, target: Any, *, delta: float = 1.0, reduction: str = "mean") -> T:
    """e*e/2 where |e| = |x - target| <= delta, else delta * (|e| - delta/2) (Huber 1964)."""
    if not delta > 0:
        raise ValueError(f"huber_loss: delta must be positive, got {delta}")
    _check_same_shape("huber_loss", x, target)
    error = abs(sub(x, target))
    quadratic = minimum(error, delta)
    return _reduce("huber_loss", mul(quadratic, sub(error, mul(quadratic, 0.5))), reduction)


def binary_cross_entropy_with_logits(
    x: T, target: Any, *, pos_weight: float = 1.0, reduction: str = "mean"
) -> T:
    """-(pos_weight * t * log s(x) + (1 - t) * log(1 - s(x))), with s the sigmoid and t in [0, 1].

    Written with -log s(x) = softplus(-x), so that neither tail cancels or overflows.
    """
    name = "binary_cross_entropy_with_logits"
    _check_same_shape(name, x, target)
    probabilities = array_of(target)
    if isinstance(probabilities, np.ndarray) and probabilities.flags.c_contiguous:
        _core.check_probabilities(name, probabilities)
    elif not bool(np.all((probabilities >= 0) & (probabilities <= 1))):
        raise ValueError(f"{name}: target must lie in [0, 1]")
    positive = mul(softplus(neg(x)), mul(target, pos_weight))
    return _reduce(name, add(positive, mul(softplus(x), sub(1, target))), reduction)


def class_indices(name: str, target: ArrayLike, samples: int, classes: int) -> Array:
    """`target` as (N,) integers in [0, C); errors name what was expected and what came."""
    if isinstance(target, Variable):
        raise TypeError(f"{name}: target must be an array of class indices, got a float tensor")
    labels = array_of(target)
    if labels.dtype.kind not in "iu":
        raise TypeError(f"{name}: target must hold integers, got {labels.dtype}")
    if labels.shape != (samples,):
        raise ValueError(f"{name}: target must have shape ({samples},), got {labels.shape}")
    if isinstance(labels, np.ndarray) and labels.dtype in _LABELS:
        _core.check_labels(name, labels, classes)
        return labels
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if outside.size:
        raise ValueError(
            f"{name}: target must lie in [0, {classes}), got {labels[outside[0]]} "
            f"at position {outside[0]}"
        )
    return labels if labels.dtype == np.int32 else labels.astype(np.int64, copy=False)


def nll_loss(log_probabilities: T, target: ArrayLike, *, reduction: str = "mean") -> T:
    """-log_probabilities[i, target[i]].

    Args:
        log_probabilities: (N, C), for example from `log_softmax`.
        target: (N,) integers in [0, C).
    """
    check_reduction("nll_loss", reduction, REDUCTIONS[:3])
    shape = array_of(log_probabilities).shape
    if len(shape) != 2:
        raise ValueError(f"nll_loss: log_probabilities must be (N, C), got shape {shape}")
    labels = class_indices("nll_loss", target, *shape)
    return _reduce("nll_loss", neg(_pick(log_probabilities, labels)), reduction)


def _pick(x: T, labels: Array) -> T:
    """x[i, labels[i]]."""
    if not isinstance(labels, np.ndarray) or labels.dtype not in _LABELS:
        return index(x, (np.arange(array_of(x).shape[0]), labels))
    classes = array_of(x).shape[1]
    y = _core.pick(data_of(x), labels)
    return record(y, lambda dy: (_unpick(dy, labels, classes),), x)


def _unpick(x: T, labels: Array, classes: int) -> T:
    """(N, classes), x[i] at column labels[i] and 0 elsewhere."""
    y = _core.unpick(data_of(x), labels, classes)
    return record(y, lambda dy: (_pick(dy, labels),), x)


def cross_entropy(
    logits: T, target: ArrayLike, *, label_smoothing: float = 0.0, reduction: str = "mean"
) -> T:
    """-sum_c q_c log softmax(logits)_c, with q = (1 - s) onehot(target) + s/C for smoothing s.

    Loss and gradient come from one pass over the logits.

    Args:
        logits: (N, C).
        target: (N,) integers in [0, C).
        label_smoothing: s in [0, 1] (Szegedy 2016).
        reduction: "mean", "sum" or "none".
    """
    options: dict[str, Any] = {"label_smoothing": label_smoothing, "reduction": reduction}
    array = array_of(logits)
    if array.ndim == 2:
        target = class_indices("cross_entropy", target, *array.shape)
    loss, dlogits = _core.softmax_cross_entropy(data_of(logits), target, **options)

    def formula(x: Any) -> Any:
        log_p = log_softmax(x)
        hard = nll_loss(log_p, target, reduction="none")
        smooth = neg(mean(log_p, -1))
        per_sample = add(mul(hard, 1 - label_smoothing), mul(smooth, label_smoothing))
        return _reduce("cross_entropy", per_sample, reduction)

    def backward(dy: Any) -> Any:
        if is_grad_enabled():
            return differentiate(formula, (logits,), dy)
        return (mul(dlogits, reshape(dy, (-1, 1))),)

    return record(loss, backward, logits)


def softmax_cross_entropy(
    logits: ArrayLike,
    target: ArrayLike,
    *,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> tuple[Array, Array]:
    """Loss and its gradient in the logits, for a training loop written by hand. Arrays only.

    Args, formula: those of `cross_entropy`.

    Returns:
        loss: 0-d, or (N,) for "none".
        dlogits: (N, C), the gradient of the reduced loss; for "none" row i is that of loss[i].

    >>> import numpy as np
    >>> loss, dlogits = softmax_cross_entropy(np.zeros((1, 2), np.float32), np.array([1]))
    >>> dlogits
    array([[ 0.5, -0.5]], dtype=float32)
    """
    return _core.softmax_cross_entropy(
        data_of(logits), target, label_smoothing=label_smoothing, reduction=reduction
    )
