"""Every layer: how it is built, what it computes, and how PyTorch builds it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import reference.nn as ref
import reference.pool as pool
import thalweg as tw
from reference.conv import Geometry, conv2d
from thalweg import nn


class Layer(NamedTuple):
    """How a layer is built, its input, its reference f(x, **state), and how torch builds it."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    reference: Callable[..., Any]
    torch: Callable[[Any], Any] | None = None


def state(*names: str, f: Callable[..., Any]) -> Callable[..., Any]:
    """f(x, state[name], …)."""
    return lambda x, values: f(x, *[values[name] for name in names])


LAYERS: dict[str, Layer] = {
    "Linear": Layer(
        lambda: nn.Linear(3, 4),
        (5, 3),
        state("weight", "bias", f=ref.linear),
        lambda t: t.nn.Linear(3, 4),
    ),
    "Linear without bias": Layer(
        lambda: nn.Linear(3, 4, bias=False),
        (2, 5, 3),
        lambda x, values: ref.linear(x, values["weight"], np.zeros(4)),
        lambda t: t.nn.Linear(3, 4, bias=False),
    ),
    "BlockLinear": Layer(
        lambda: nn.BlockLinear(6, 4, 2), (5, 6), state("weight", "bias", f=ref.block_linear)
    ),
    "Conv2d": Layer(
        lambda: nn.Conv2d(2, 3, 3),
        (2, 2, 5, 4),
        state("weight", "bias", f=conv2d),
        lambda t: t.nn.Conv2d(2, 3, 3),
    ),
    "Conv2d with every option": Layer(
        lambda: nn.Conv2d(4, 2, (3, 2), (2, 1), (1, 2), (1, 2), 2, bias=False),
        (2, 4, 5, 4),
        state(
            "weight",
            f=lambda x, w: conv2d(x, w, None, Geometry((2, 1), (1, 1, 2, 2), (1, 2), 2)),
        ),
        lambda t: t.nn.Conv2d(4, 2, (3, 2), (2, 1), (1, 2), (1, 2), 2, bias=False),
    ),
    "Conv2d of the same size": Layer(
        lambda: nn.Conv2d(2, 2, (4, 3), padding="same"),
        (1, 2, 4, 4),
        state("weight", "bias", f=lambda x, w, b: conv2d(x, w, b, Geometry((1, 1), (1, 2, 1, 1)))),
    ),
    "BatchNorm1d": Layer(
        lambda: nn.BatchNorm1d(3),
        (6, 3),
        state("weight", "bias", f=lambda x, g, b: ref.batch_norm(x, g, b, 1e-5)),
        lambda t: t.nn.BatchNorm1d(3),
    ),
    "BatchNorm1d of sequences": Layer(
        lambda: nn.BatchNorm1d(3),
        (2, 3, 4),
        state("weight", "bias", f=lambda x, g, b: ref.batch_norm(x, g, b, 1e-5)),
        lambda t: t.nn.BatchNorm1d(3),
    ),
    "BatchNorm2d": Layer(
        lambda: nn.BatchNorm2d(2, momentum=None),
        (3, 2, 2, 3),
        state("weight", "bias", f=lambda x, g, b: ref.batch_norm(x, g, b, 1e-5)),
        lambda t: t.nn.BatchNorm2d(2, momentum=None),
    ),
    "BatchNorm1d plain": Layer(
        lambda: nn.BatchNorm1d(3, eps=0.1, affine=False, track_running_stats=False),
        (6, 3),
        lambda x, _: ref.batch_norm(x, np.ones(3), np.zeros(3), 0.1),
        lambda t: t.nn.BatchNorm1d(3, eps=0.1, affine=False, track_running_stats=False),
    ),
    "SyncBatchNorm": Layer(
        lambda: nn.SyncBatchNorm(3),
        (6, 3),
        state("weight", "bias", f=lambda x, g, b: ref.batch_norm(x, g, b, 1e-5)),
        lambda t: t.nn.BatchNorm1d(3),
    ),
    "LayerNorm": Layer(
        lambda: nn.LayerNorm(4),
        (2, 3, 4),
        state("weight", "bias", f=lambda x, g, b: ref.layer_norm(x, g, b, 1e-5)),
        lambda t: t.nn.LayerNorm(4),
    ),
    "LayerNorm plain": Layer(
        lambda: nn.LayerNorm(4, elementwise_affine=False),
        (3, 4),
        lambda x, _: ref.layer_norm(x, np.ones(4), np.zeros(4), 1e-5),
        lambda t: t.nn.LayerNorm(4, elementwise_affine=False),
    ),
    "Identity": Layer(nn.Identity, (2, 3), lambda x, _: x, lambda t: t.nn.Identity()),
    "ReLU": Layer(nn.ReLU, (2, 3), lambda x, _: ref.relu(x), lambda t: t.nn.ReLU()),
    "LeakyReLU": Layer(
        lambda: nn.LeakyReLU(0.3),
        (2, 3),
        lambda x, _: ref.leaky_relu(x, 0.3),
        lambda t: t.nn.LeakyReLU(0.3),
    ),
    "Sigmoid": Layer(nn.Sigmoid, (2, 3), lambda x, _: ref.sigmoid(x), lambda t: t.nn.Sigmoid()),
    "Tanh": Layer(nn.Tanh, (2, 3), lambda x, _: ref.tanh(x), lambda t: t.nn.Tanh()),
    "GELU": Layer(nn.GELU, (2, 3), lambda x, _: ref.gelu(x), lambda t: t.nn.GELU()),
    "Softplus": Layer(nn.Softplus, (2, 3), lambda x, _: ref.softplus(x), lambda t: t.nn.Softplus()),
    "Softmax": Layer(nn.Softmax, (2, 3), lambda x, _: ref.softmax(x), lambda t: t.nn.Softmax(-1)),
    "LogSoftmax": Layer(
        lambda: nn.LogSoftmax(1),
        (2, 3),
        lambda x, _: ref.log_softmax(x, 1),
        lambda t: t.nn.LogSoftmax(1),
    ),
    "Flatten": Layer(nn.Flatten, (2, 3, 2), lambda x, _: x.reshape(2, 6), lambda t: t.nn.Flatten()),
    "MaxPool2d": Layer(
        lambda: nn.MaxPool2d(3, 2, 1),
        (2, 3, 5, 6),
        lambda x, _: pool.max_pool(x, pool.Window((3, 3), (2, 2), (1, 1))),
        lambda t: t.nn.MaxPool2d(3, 2, 1),
    ),
    "MaxPool2d with ReLU": Layer(
        lambda: nn.MaxPool2d((2, 1), ceil_mode=True, activation="relu"),
        (2, 3, 5, 2),
        lambda x, _: ref.relu(pool.max_pool(x, pool.Window((2, 1), (2, 1), ceil_mode=True))),
        lambda t: t.nn.Sequential(t.nn.MaxPool2d((2, 1), ceil_mode=True), t.nn.ReLU()),
    ),
    "AvgPool2d": Layer(
        lambda: nn.AvgPool2d(2, 1, 1),
        (2, 3, 3, 4),
        lambda x, _: pool.avg_pool(x, pool.Window((2, 2), (1, 1), (1, 1))),
        lambda t: t.nn.AvgPool2d(2, 1, 1),
    ),
    "GlobalAvgPool2d": Layer(
        nn.GlobalAvgPool2d,
        (2, 3, 3, 4),
        lambda x, _: x.mean((2, 3), keepdims=True),
        lambda t: t.nn.AdaptiveAvgPool2d(1),
    ),
    "LocalResponseNorm": Layer(
        lambda: nn.LocalResponseNorm(3, alpha=0.5),
        (2, 5, 2, 2),
        lambda x, _: pool.local_response_norm(x, 3, 0.5, 0.75, 1.0),
        lambda t: t.nn.LocalResponseNorm(3, alpha=0.5),
    ),
    "Residual": Layer(
        lambda: nn.Residual(nn.Linear(3, 3)),
        (2, 3),
        state("body.weight", "body.bias", f=lambda x, w, b: ref.linear(x, w, b) + x),
    ),
    "Residual with shortcut": Layer(
        lambda: nn.Residual(nn.Tanh(), nn.Linear(3, 3)),
        (2, 3),
        state(
            "shortcut.weight", "shortcut.bias", f=lambda x, w, b: ref.linear(x, w, b) + ref.tanh(x)
        ),
    ),
    "Concat": Layer(
        lambda: nn.Concat(nn.Linear(3, 2), nn.Identity()),
        (2, 3),
        state("0.weight", "0.bias", f=lambda x, w, b: np.concatenate([ref.linear(x, w, b), x], 1)),
    ),
    "Sequential": Layer(
        lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)),
        (5, 3),
        lambda x, v: ref.linear(
            ref.tanh(
                ref.batch_norm(
                    ref.linear(x, v["0.weight"], v["0.bias"]), v["1.weight"], v["1.bias"], 1e-5
                )
            ),
            v["3.weight"],
            v["3.bias"],
        ),
        lambda t: t.nn.Sequential(
            t.nn.Linear(3, 4), t.nn.BatchNorm1d(4), t.nn.Tanh(), t.nn.Linear(4, 2)
        ),
    ),
}


def draw_input(layer: Layer) -> np.ndarray:
    x = np.random.default_rng(11).standard_normal(layer.shape)
    return np.where(abs(x) < 0.01, 0.5, x)


def double(layer: Layer) -> nn.Module:
    """The layer in float64 with parameters that differ from their defaults."""
    tw.manual_seed(13)
    module = layer.make().double()
    draw = np.random.default_rng(12)
    for parameter in module.parameters():
        parameter.data += draw.uniform(-0.3, 0.3, parameter.shape)
    return module
