"""Networks as data, so that every library trains the same one from the same weights.

A layer is its name in `torch.nn` (and in `thalweg.nn`) with its arguments; Residual and Concat hold
lists of layers. `build` makes modules of either package, `jax_forward` a function.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from case import Array

Layer = tuple[Any, ...]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Network:
    """`input`: of one sample; `steps`: of one timed call; `quick`: small enough for --quick;
    `precision`: of products and convolutions (ours and PyTorch's have the same names)."""

    name: str
    layers: list[Layer]
    input: Shape
    batch: int
    steps: int
    quick: bool = False
    precision: str = "highest"

    @property
    def flops(self) -> float:
        """Of a training step's products: forward, and two gradients of all but the first layer."""
        products = [flops for _, flops in _trace(self.layers, self.input)]
        first = next(flops for flops in products if flops)
        return self.batch * (3.0 * sum(products) - first)

    def weights(self) -> list[Array]:
        """In the order of `parameters()`: He's for products, 1 and 0 for BatchNorm."""
        rng = np.random.default_rng(0)
        return [_draw(rng, shape) for layer in _flat(self.layers) for shape in _parameters(layer)]

    def batches(self) -> list[tuple[Array, Array]]:
        rng = np.random.default_rng(1)
        shape = (self.batch, *self.input)
        return [
            (rng.standard_normal(shape, np.float32), rng.integers(0, 10, self.batch))
            for _ in range(self.steps)
        ]


# --- the networks --------------------------------------------------------------------------------
def mlp(*widths: int, norm: bool) -> list[Layer]:
    layers: list[Layer] = []
    for fan_in, fan_out in itertools.pairwise(widths[:-1]):
        layers += [("Linear", fan_in, fan_out)]
        layers += [("BatchNorm1d", fan_out)] * norm + [("ReLU",)]
    return [*layers, ("Linear", *widths[-2:])]


def conv(fan_in: int, fan_out: int, kernel: int, stride: int = 1) -> list[Layer]:
    convolution = ("Conv2d", fan_in, fan_out, kernel, stride, kernel // 2)
    return [convolution, ("BatchNorm2d", fan_out), ("ReLU",)]


def plain(fan_in: int, fan_out: int, kernel: int, stride: int = 1) -> list[Layer]:
    return [("Conv2d", fan_in, fan_out, kernel, stride, kernel // 2), ("ReLU",)]


def residual(channels: int) -> list[Layer]:
    return [
        ("Residual", [*conv(channels, channels, 3), *conv(channels, channels, 3)[:2]]),
        ("ReLU",),
    ]


def inception(fan_in: int, *outs: int) -> Layer:
    """1x1; 1x1 and 3x3; 1x1 and 5x5; pooling and 1x1 (Szegedy 2015, table 1)."""
    one, three_in, three, five_in, five, pooled = outs
    return (
        "Concat",
        plain(fan_in, one, 1),
        plain(fan_in, three_in, 1) + plain(three_in, three, 3),
        plain(fan_in, five_in, 1) + plain(five_in, five, 5),
        [("MaxPool2d", 3, 1, 1), *plain(fan_in, pooled, 1)],
    )


HALVED = ("MaxPool2d", 3, 2, 1)
GOOGLENET: list[Layer] = [
    *plain(3, 64, 7, 2), HALVED, *plain(64, 64, 1), *plain(64, 192, 3), HALVED,
    inception(192, 64, 96, 128, 16, 32, 32), inception(256, 128, 128, 192, 32, 96, 64), HALVED,
    inception(480, 192, 96, 208, 16, 48, 64), inception(512, 160, 112, 224, 24, 64, 64),
    inception(512, 128, 128, 256, 24, 64, 64), inception(512, 112, 144, 288, 32, 64, 64),
    inception(528, 256, 160, 320, 32, 128, 128), HALVED,
    inception(832, 256, 160, 320, 32, 128, 128), inception(832, 384, 192, 384, 48, 128, 128),
    ("AvgPool2d", 7), ("Flatten",), ("Linear", 1024, 10),
]  # fmt: skip
LENET: list[Layer] = [
    *conv(1, 32, 5), ("MaxPool2d", 2), *conv(32, 64, 5), ("MaxPool2d", 2), ("Flatten",),
    ("Linear", 3136, 128), ("BatchNorm1d", 128), ("ReLU",), ("Linear", 128, 10),
]  # fmt: skip
RESIDUAL: list[Layer] = [
    *conv(3, 32, 3), *residual(32), ("MaxPool2d", 2), *conv(32, 64, 3), *residual(64),
    ("AvgPool2d", 16), ("Flatten",), ("Linear", 64, 10),
]  # fmt: skip

NETWORKS = [
    Network("digits 64-64-10 x32", mlp(64, 64, 10, norm=False), (64,), 32, 20, quick=True),
    Network("MNIST 784-100-100-100-10 BN x60", mlp(784, 100, 100, 100, 10, norm=True), (784,), 60,
            20, quick=True),
    Network("CIFAR 3072-100-10 BN x64", mlp(3072, 100, 10, norm=True), (3072,), 64, 10),
    Network("784-1024-1024-1024-10 BN x256", mlp(784, 1024, 1024, 1024, 10, norm=True), (784,),
            256, 4),
    Network("LeNet BN x64", LENET, (1, 28, 28), 64, 4),
    Network("LeNet BN x64 high", LENET, (1, 28, 28), 64, 4, precision="high"),
    Network("residual net x32", RESIDUAL, (3, 32, 32), 32, 4),
    Network("residual net x32 high", RESIDUAL, (3, 32, 32), 32, 4, precision="high"),
    Network("GoogLeNet x32", GOOGLENET, (3, 224, 224), 32, 1),
]  # fmt: skip


# --- what layers are -----------------------------------------------------------------------------
def _branches(layer: Layer) -> list[list[Layer]]:
    return list(layer[1:]) if layer[0] in ("Residual", "Concat") else []


def _flat(layers: list[Layer]) -> Iterator[Layer]:
    for layer in layers:
        yield layer
        for branch in _branches(layer):
            yield from _flat(branch)


def _parameters(layer: Layer) -> list[Shape]:
    name, *args = layer
    if name == "Linear":
        return [(args[1], args[0]), (args[1],)]
    if name == "Conv2d":
        return [(args[1], args[0], args[2], args[2]), (args[1],)]
    return [(args[0], 1), (args[0],)] if name.startswith("BatchNorm") else []


def _draw(rng: np.random.Generator, shape: Shape) -> Array:
    if len(shape) == 1:
        return np.zeros(shape, np.float32)
    if shape[1:] == (1,):  # gamma
        return np.ones(shape[0], np.float32)
    return rng.standard_normal(shape, np.float32) * np.float32(math.sqrt(2 / math.prod(shape[1:])))


def _trace(layers: list[Layer], shape: Shape) -> Iterator[tuple[Shape, float]]:
    """Shape after each layer, and the operations of its products for one sample."""
    for layer in layers:
        name, *args = layer
        flops = 0.0
        if name == "Linear":
            shape, flops = (args[1],), 2.0 * args[0] * args[1]
        elif name in ("Conv2d", "MaxPool2d", "AvgPool2d"):
            channels = args[1] if name == "Conv2d" else shape[0]
            kernel, stride, padding = _window(layer)
            shape = (channels, *((n + 2 * padding - kernel) // stride + 1 for n in shape[1:]))
            if name == "Conv2d":
                flops = 2.0 * args[0] * kernel**2 * math.prod(shape)
        elif name == "Flatten":
            shape = (math.prod(shape),)
        elif branches := _branches(layer):
            traced = [list(_trace(branch, shape)) for branch in branches]
            flops = sum(f for branch in traced for _, f in branch)
            if name == "Concat":
                shape = (sum(branch[-1][0][0] for branch in traced), *traced[0][-1][0][1:])
        yield shape, flops


def _window(layer: Layer) -> tuple[int, int, int]:
    """Kernel, stride and padding; pooling's stride is its kernel unless given."""
    name, *args = layer
    if name == "Conv2d":
        return args[2], args[3], args[4]
    return args[0], (args[1] if len(args) > 1 else args[0]), (args[2] if len(args) > 2 else 0)


# --- builders ------------------------------------------------------------------------------------
def build(nn: ModuleType, layers: list[Layer], composed: dict[str, Callable[..., Any]]) -> Any:
    """A Sequential of `nn`; `composed` makes Residual and Concat from modules."""
    modules = []
    for layer in layers:
        if branches := _branches(layer):
            modules.append(composed[layer[0]](*(build(nn, b, composed) for b in branches)))
        else:
            modules.append(getattr(nn, layer[0])(*layer[1:]))
    return nn.Sequential(*modules)


def jax_forward(layers: list[Layer], parameters: Iterator[Any], x: Any) -> Any:
    """The layers on x, which take their weights from the iterator."""
    import jax
    import jax.numpy as jnp

    for layer in layers:
        name = layer[0]
        if name == "Linear":
            x = x @ next(parameters).T + next(parameters)
        elif name == "Conv2d":
            _, stride, padding = _window(layer)
            x = jax.lax.conv_general_dilated(
                x, next(parameters), (stride, stride), [(padding, padding)] * 2
            )
            x = x + next(parameters)[:, None, None]
        elif name.startswith("BatchNorm"):
            axes = (0, *range(2, x.ndim))
            wide = (-1, *[1] * (x.ndim - 2))
            mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
            scale = jax.lax.rsqrt(var + 1e-5) * next(parameters).reshape(wide)
            x = (x - mean) * scale + next(parameters).reshape(wide)
        elif name in ("MaxPool2d", "AvgPool2d"):
            kernel, stride, padding = _window(layer)
            start, join = (-jnp.inf, jax.lax.max) if name[0] == "M" else (0.0, jax.lax.add)
            window = ((1, 1, kernel, kernel), (1, 1, stride, stride))
            x = jax.lax.reduce_window(
                x, start, join, *window, [(0, 0)] * 2 + [(padding, padding)] * 2
            )
            x = x / kernel**2 if name[0] == "A" else x
        elif name == "ReLU":
            x = jax.nn.relu(x)
        elif name == "Flatten":
            x = x.reshape(x.shape[0], -1)
        elif name == "Residual":
            x = x + jax_forward(layer[1], parameters, x)
        else:
            x = jnp.concatenate([jax_forward(b, parameters, x) for b in _branches(layer)], 1)
    return x
