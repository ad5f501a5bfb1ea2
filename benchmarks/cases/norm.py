"""BatchNorm in training, forward and backward in one call, alone and with ReLU and a residual sum.

PyTorch runs the operations under its autograd, whose overhead is thus left out; JAX one jitted
function of both passes. Bytes: forward reads x twice and writes y, backward reads x and dy twice
and writes dx, 4 bytes each; what stays in cache between the two visits counts once.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from case import Array, Case, Side, Work
from measure import Record, Run, compare

SEED = 0
EPS = 1e-5
SHAPES = [(256, 100), (4096, 1024), (32, 64, 56, 56), (128, 256, 14, 14), (32, 832, 7, 7)]
QUICK_SHAPES = [(256, 100), (4096, 1024), (32, 832, 7, 7)]
FUSED = ("", "relu", "add relu")


@dataclass(frozen=True)
class Norm:
    shape: tuple[int, ...]  # NCHW
    last: bool  # stored with channels last
    fused: str

    @property
    def name(self) -> str:
        layout = " channels last" if self.last else ""
        return f"{self.shape}{layout}{' ' + self.fused if self.fused else ''}".replace(", ", ",")

    @property
    def relu(self) -> bool:
        return "relu" in self.fused

    @property
    def add(self) -> bool:
        return "add" in self.fused

    @property
    def channel_axis(self) -> int:
        return len(self.shape) - 1 if self.last else 1

    def arrays(self) -> dict[str, Array]:
        """x, dy and residual as they lie in memory; gamma and beta. dy is 0 where y is so near to 0
        that rounding decides whether ReLU lets the gradient through."""
        rng = np.random.default_rng(SEED)
        shape = self.shape
        if self.last:
            shape = (shape[0], *shape[2:], shape[1])
        arrays = {k: rng.standard_normal(shape, np.float32) for k in ("x", "dy", "residual")}
        for name in ("gamma", "beta"):
            arrays[name] = rng.uniform(0.5, 1.5, self.shape[1]).astype(np.float32)
        arrays["dy"][np.abs(_forward(self, arrays)[2]) < 1e-4] = 0
        return arrays


def records(run: Run) -> Iterator[Record]:
    return compare("norm", cases(run.quick), run)


def cases(quick: bool) -> Iterator[Case]:
    for shape in QUICK_SHAPES if quick else SHAPES:
        for last in (False, True) if len(shape) > 2 else (False,):
            for fused in FUSED:
                yield _case(Norm(shape, last, fused))


def _case(norm: Norm) -> Case:
    sides = {"thalweg": _ours, "torch": _torch, "jax": _jax}
    elements = math.prod(norm.shape)
    streams = 5 + 2 * norm.add  # x, y, x, dy, dx; the residual and its gradient
    work = Work(bytes=4.0 * elements * streams, footprint=4.0 * elements * (4 + 2 * norm.add))
    made = {impl: functools.partial(side, norm) for impl, side in sides.items()}
    return Case(norm.name, made, 2e-4, work, functools.partial(_reference, norm))


def _forward(norm: Norm, arrays: dict[str, Array]) -> tuple[Array, Array, Array]:
    """rstd, xhat and y before ReLU, in float64."""
    x = arrays["x"].astype(np.float64)
    axes = tuple(i for i in range(x.ndim) if i != norm.channel_axis)
    rstd = 1 / np.sqrt(x.var(axis=axes, keepdims=True) + EPS)
    xhat = (x - x.mean(axis=axes, keepdims=True)) * rstd
    gamma, beta = (arrays[name].reshape(rstd.shape) for name in ("gamma", "beta"))
    return rstd, xhat, gamma * xhat + beta + (arrays["residual"] if norm.add else 0)


def _reference(norm: Norm) -> list[Array]:
    """y, dx, dgamma, dbeta in float64, all with the layout in memory."""
    arrays = norm.arrays()
    rstd, xhat, y = _forward(norm, arrays)
    dy, gamma = arrays["dy"].astype(np.float64), arrays["gamma"].reshape(rstd.shape)
    if norm.relu:
        dy, y = dy * (y > 0), np.maximum(y, 0)
    axes = tuple(i for i in range(y.ndim) if i != norm.channel_axis)
    dgamma, dbeta = (dy * xhat).sum(axes, keepdims=True), dy.sum(axes, keepdims=True)
    dx = gamma * rstd * (dy - (dbeta + xhat * dgamma) / (y.size / gamma.size))
    return [y, dx, dgamma.ravel(), dbeta.ravel()]


def _ours(norm: Norm) -> Side:
    import thalweg as tw

    a = norm.arrays()
    axis = norm.channel_axis
    running = [np.zeros_like(a["gamma"]), np.ones_like(a["gamma"])]
    options = {"axis": axis, "activation": "relu" if norm.relu else None}
    if norm.add:
        options["residual"] = a["residual"]
    last: dict[str, Any] = {}

    def call() -> None:
        last["y"], saved = tw.batch_norm(
            a["x"], a["gamma"], a["beta"], *running, training=True, eps=EPS, **options
        )
        last["grads"] = tw.batch_norm_backward(a["dy"], a["x"], a["gamma"], saved, axis=axis)

    return Side(call, lambda: [last["y"], *last["grads"][:3]])


def _torch(norm: Norm) -> Side:
    import torch

    a = {key: torch.from_numpy(value) for key, value in norm.arrays().items()}
    if norm.last:
        order = (0, x_dims := len(norm.shape) - 1, *range(1, x_dims))
        a |= {key: a[key].permute(order) for key in ("x", "dy", "residual")}
    aten = torch.ops.aten
    running = [torch.zeros_like(a["gamma"]), torch.ones_like(a["gamma"])]
    last: dict[str, Any] = {}

    def call() -> None:
        y, mean, rstd = aten.native_batch_norm(
            a["x"], a["gamma"], a["beta"], *running, True, 0.1, EPS
        )
        if norm.add:
            y += a["residual"]
        if norm.relu:
            y = torch.relu_(y)
        dy = aten.threshold_backward(a["dy"], y, 0) if norm.relu else a["dy"]
        last["y"] = y
        last["grads"] = aten.native_batch_norm_backward(
            dy, a["x"], a["gamma"], *running, mean, rstd, True, EPS, [True, True, True]
        )

    def answer() -> list[Array]:
        wide = [
            t.permute(0, *range(2, t.ndim), 1) if norm.last else t
            for t in (last["y"], last["grads"][0])
        ]
        return [t.numpy() for t in (*wide, *last["grads"][1:])]

    return Side(call, answer)


def _jax(norm: Norm) -> Side:
    import jax
    import jax.numpy as jnp

    a = {key: jnp.asarray(value) for key, value in norm.arrays().items()}
    axes = tuple(i for i in range(len(norm.shape)) if i != norm.channel_axis)
    wide = [-1 if i == norm.channel_axis else 1 for i in range(len(norm.shape))]

    def forward(x: Any, gamma: Any, beta: Any, residual: Any) -> Any:
        mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
        y = (x - mean) * jax.lax.rsqrt(var + EPS) * gamma.reshape(wide) + beta.reshape(wide)
        if norm.add:
            y += residual
        return jax.nn.relu(y) if norm.relu else y

    @jax.jit
    def both(x: Any, gamma: Any, beta: Any, residual: Any, dy: Any) -> Any:
        y, pull = jax.vjp(forward, x, gamma, beta, residual)
        grads = pull(dy)
        return y, grads if norm.add else grads[:3]

    last: dict[str, Any] = {}

    def call() -> None:
        arguments = [a[key] for key in ("x", "gamma", "beta", "residual", "dy")]
        last["result"] = jax.block_until_ready(both(*arguments))

    def answer() -> list[Array]:
        y, grads = last["result"]
        return [np.asarray(t) for t in (y, *grads[:3])]

    return Side(call, answer)
