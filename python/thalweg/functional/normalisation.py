"""Batch and layer normalisation, and dropout.

The fused backward passes of `_core` have no second derivative of their own. Where one is asked for
(`create_graph`), the formula is written out in operations that have one, and differentiated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from .. import _core
from ..autograd import is_grad_enabled
from ..backend import Array, ArrayLike
from ..variable import array_of, data_of, first_order, record
from .activation import ACTIVATIONS
from .differentiate import differentiate
from .elementwise import add, div, mul, sqrt, square, sub
from .reduction import mean
from .shape import reshape

if TYPE_CHECKING:
    from ..distributed.comm import Communicator

T = TypeVar("T")


def batch_norm(
    x: T,
    gamma: Any = None,
    beta: Any = None,
    running_mean: ArrayLike | None = None,
    running_var: ArrayLike | None = None,
    *,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
    axis: int = 1,
    residual: Any = None,
    activation: str | None = None,
    count: Array | None = None,
) -> tuple[T, Any]:
    """activation(gamma * (x - mean) / sqrt(var + eps) + beta + residual), channel by channel.

    In training, mean and biased variance are those of x over every axis but `axis`, and the running
    statistics move by `momentum` towards the mean and the unbiased variance, in place. Otherwise
    the running statistics are used and left alone (Ioffe & Szegedy 2015).

    Args:
        x: (N, C) or (N, C, H, W), or channels last with `axis=-1`.
        gamma, beta: (C,) or None for 1 and 0.
        running_mean, running_var: (C,) arrays; None keeps no statistics.
        residual: same shape as x.
        activation: None or "relu".
        count: int64 (), how many batches the running statistics have seen; where given, momentum is
            1 / (count + 1), their plain average.

    Returns:
        y, and what `batch_norm_backward` needs.

    Raises:
        ValueError: shapes that do not fit; one element a channel in training, whose variance is
            undefined; evaluation without running statistics. The running statistics are unchanged.
    """
    y, saved = _core.batch_norm(
        data_of(x),
        data_of(gamma),
        data_of(beta),
        running_mean,
        running_var,
        training=training,
        momentum=momentum,
        eps=eps,
        axis=axis,
        residual=data_of(residual),
        activation=activation,
        count=count,
    )
    fixed = None if training else _fixed_statistics(running_mean, running_var)

    def backward(dy: Any) -> Any:
        if is_grad_enabled():
            formula = _batch_norm_formula(eps, axis, fixed, activation)
            return differentiate(formula, (x, gamma, beta, residual), dy)
        parts = _core.batch_norm_backward(dy.data, data_of(x), data_of(gamma), saved, axis=axis)
        four = parts if residual is not None else (*parts, None)
        return first_order("batch_norm", four, dy)

    return record(y, backward, x, gamma, beta, residual), saved


def _fixed_statistics(mean: Any, var: Any) -> tuple[Array, Array]:
    return array_of(mean).copy(), array_of(var).copy()


def _batch_norm_formula(
    eps: float, axis: int, fixed: tuple[Array, Array] | None, activation: str | None
) -> Any:
    def formula(x: Any, gamma: Any, beta: Any, residual: Any) -> Any:
        channel = [1] * x.ndim
        channel[axis] = x.shape[axis]
        others = [i for i in range(x.ndim) if i != axis % x.ndim]
        if fixed is None:
            deviation = sub(x, mean(x, others, keepdims=True))
            variance = mean(square(deviation), others, keepdims=True)
        else:
            deviation = sub(x, fixed[0].reshape(channel))
            variance = fixed[1].reshape(channel)
        y = _scale_and_shift(div(deviation, sqrt(add(variance, eps))), gamma, beta, channel)
        return ACTIVATIONS[activation](y if residual is None else add(y, residual))

    return formula


def _scale_and_shift(xhat: Any, gamma: Any, beta: Any, shape: Any) -> Any:
    y = xhat if gamma is None else mul(xhat, reshape(gamma, shape))
    return y if beta is None else add(y, reshape(beta, shape))


def batch_norm_backward(
    dy: ArrayLike, x: ArrayLike, gamma: ArrayLike | None, saved: Any, *, axis: int = 1
) -> tuple[Array, ...]:
    """dx, dgamma, dbeta, and dresidual where the forward call had a residual.

    With n elements a channel: dbeta = sum dy, dgamma = sum dy*xhat,
    dx = gamma / (n sqrt(var + eps)) * (n dy - dbeta - xhat dgamma). Arrays only.
    """
    return _core.batch_norm_backward(data_of(dy), data_of(x), data_of(gamma), saved, axis=axis)


def sync_batch_norm(
    x: T,
    gamma: Any,
    beta: Any,
    running_mean: Array | None,
    running_var: Array | None,
    comm: Communicator,
    *,
    momentum: float = 0.1,
    eps: float = 1e-5,
    axis: int = 1,
) -> T:
    """`batch_norm` in training over the samples of all ranks of `comm`.

    Forward merges (n, mean, M2) of the ranks in rank order (Chan, Golub & LeVeque 1983), backward
    adds sum dy and sum dy*xhat, so that every rank has the same statistics, bit for bit. A rank
    without samples takes part. Its second derivative would need communication: refused.
    """
    dtype = array_of(x).dtype
    n, mu, m2 = merge_statistics(comm.allgather(_core.batch_norm_statistics(data_of(x), axis=axis)))
    if n < 2:
        raise ValueError(f"batch_norm: expected more than 1 element a channel in training, got {n}")
    rstd = 1 / np.sqrt(m2 / n + eps)  # float64, like mu: a large mean needs its last digits
    y = _core.batch_norm_apply(data_of(x), data_of(gamma), data_of(beta), mu, rstd, axis=axis)
    if running_mean is not None and running_var is not None:
        running_mean += momentum * (mu - running_mean)
        running_var += momentum * (m2 / (n - 1) - running_var)

    def backward(dy: Any) -> Any:
        local = _core.batch_norm_backward_sums(dy.data, data_of(x), mu, rstd, axis=axis)
        total = np.stack(local)
        comm.allreduce(total)
        sum_dy, sum_dy_xhat = total
        dx = _core.batch_norm_backward_apply(
            dy.data, data_of(x), data_of(gamma), mu, rstd, sum_dy, sum_dy_xhat, n, axis=axis
        )
        dbeta, dgamma = (part.astype(dtype) for part in local)
        return first_order("sync_batch_norm", (dx, dgamma, dbeta), dy, x, gamma, beta)

    return record(y, backward, x, gamma, beta)


def merge_statistics(parts: list[tuple[int, Array, Array]]) -> tuple[int, Array, Array]:
    """(n, mean, M2) of the union of disjoint samples, in float64, merged in the order given."""
    n, mu, m2 = 0, np.zeros(parts[0][1].shape), np.zeros(parts[0][2].shape)
    for n_part, mean_part, m2_part in parts:
        if n_part == 0:
            continue
        n += n_part
        delta = mean_part.astype(np.float64) - mu
        mu += delta * (n_part / n)
        m2 += m2_part + delta * delta * (n_part * (n - n_part) / n)
    return n, mu, m2


def layer_norm(x: T, gamma: Any = None, beta: Any = None, *, eps: float = 1e-5) -> T:
    """gamma * (x - mean) / sqrt(var + eps) + beta over the last axis (Ba, Kiros & Hinton 2016).

    Args:
        x: (..., C).
        gamma, beta: (C,) or None for 1 and 0.
    """
    y, saved = _core.layer_norm(data_of(x), data_of(gamma), data_of(beta), eps=eps)

    def formula(x: Any, gamma: Any, beta: Any) -> Any:
        deviation = sub(x, mean(x, -1, keepdims=True))
        xhat = div(deviation, sqrt(add(mean(square(deviation), -1, keepdims=True), eps)))
        return _scale_and_shift(xhat, gamma, beta, -1)

    def backward(dy: Any) -> Any:
        if is_grad_enabled():
            return differentiate(formula, (x, gamma, beta), dy)
        parts = _core.layer_norm_backward(dy.data, data_of(x), data_of(gamma), saved)
        return first_order("layer_norm", parts, dy)

    return record(y, backward, x, gamma, beta)


def dropout(
    x: T,
    p: float = 0.5,
    *,
    seed: int = 0,
    step: int = 0,
    module: int = 0,
    sample_offset: int = 0,
    source: Array | None = None,
) -> T:
    """x / (1 - p) with probability 1 - p, else 0 (Srivastava 2014).

    The mask is a function of (seed, step, module, sample_offset + index along axis 0, element), so
    it does not depend on threads, on ranks, or on what was drawn before.
    Where `source` is given, seed, step and sample_offset are its three int64, see
    `Generator.snapshot`.
    """
    options: dict[str, Any] = {"step": step, "module": module, "sample_offset": sample_offset}
    options |= {"seed": seed, "source": source}
    y = _core.dropout(data_of(x), p, **options)
    return record(y, lambda dy: (dropout(dy, p, **options),), x)
