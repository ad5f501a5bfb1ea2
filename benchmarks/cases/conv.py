"""Convolutions and poolings of LeNet, AlexNet, GoogLeNet and ResNet-18 at batch 32: forward and
all gradients, in NCHW and in channels last; three layers pass by pass; three layers, channels last,
at lower precision: PyTorch in bfloat16 where ours is.

PyTorch runs the operations under its autograd, whose overhead is thus left out. 2 N O H' W' C K K
floating-point operations a pass.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from case import Array, Case, Side, Work
from measure import Record, Run, compare

BATCH = 32
MUCH = 2_000_000  # elements
PASSES = ("forward", "data gradient", "weight gradient")


@dataclass(frozen=True)
class Layer:
    """Channels in and out, rows and columns, kernel, stride, padding."""

    network: str
    fan_in: int
    fan_out: int
    size: int
    kernel: int
    stride: int = 1
    padding: int = 0

    @property
    def name(self) -> str:
        stride = f" /{self.stride}" if self.stride > 1 else ""
        shape = f"{self.fan_in}x{self.size}x{self.size}"
        return f"{self.network} {shape} {self.kernel}x{self.kernel}x{self.fan_out}{stride}"

    @property
    def out_size(self) -> int:
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def flops(self) -> float:
        outputs = BATCH * self.fan_out * self.out_size**2
        return 2.0 * outputs * self.fan_in * self.kernel**2

    def arrays(self, last: bool, kind: str = "highest") -> dict[str, Array]:
        """x, w, b and dy; with `last`, x, w and dy are views of memory with channels last.

        For the kind "bfloat16" they hold float32 values that are bfloat16.
        """
        rng = np.random.default_rng(0)
        k, out = self.kernel, self.out_size
        shapes = {
            "x": (BATCH, self.fan_in, self.size, self.size),
            "w": (self.fan_out, self.fan_in, k, k),
            "dy": (BATCH, self.fan_out, out, out),
        }
        arrays = {key: rng.standard_normal(shape, np.float32) for key, shape in shapes.items()}
        if last:
            arrays = {k: np.ascontiguousarray(_channels_last(v)) for k, v in arrays.items()}
            arrays = {k: v.transpose(0, 3, 1, 2) for k, v in arrays.items()}
        arrays["b"] = rng.standard_normal(self.fan_out, np.float32)
        if kind == "bfloat16":
            for array in arrays.values():
                array.view(np.uint32)[...] &= 0xFFFF0000
        return arrays


LAYERS = [
    Layer("LeNet", 1, 32, 28, 5, 1, 2),
    Layer("LeNet", 32, 64, 14, 5, 1, 2),
    Layer("AlexNet", 3, 64, 224, 11, 4, 2),
    Layer("AlexNet", 64, 192, 27, 5, 1, 2),
    Layer("AlexNet", 192, 384, 13, 3, 1, 1),
    Layer("AlexNet", 384, 256, 13, 3, 1, 1),
    Layer("GoogLeNet", 3, 64, 224, 7, 2, 3),
    Layer("GoogLeNet", 64, 192, 56, 3, 1, 1),
    Layer("GoogLeNet", 192, 64, 28, 1),
    Layer("GoogLeNet", 96, 128, 28, 3, 1, 1),
    Layer("GoogLeNet", 16, 32, 28, 5, 1, 2),
    Layer("GoogLeNet", 480, 192, 14, 1),
    Layer("GoogLeNet", 832, 384, 7, 1),
    Layer("ResNet-18", 64, 64, 56, 3, 1, 1),
    Layer("ResNet-18", 64, 128, 56, 3, 2, 1),
    Layer("ResNet-18", 64, 128, 56, 1, 2),
    Layer("ResNet-18", 128, 128, 28, 3, 1, 1),
    Layer("ResNet-18", 256, 256, 14, 3, 1, 1),
    Layer("ResNet-18", 512, 512, 7, 3, 1, 1),
]
QUICK = [LAYERS[1], LAYERS[8], LAYERS[10], LAYERS[18]]
BY_PASS = [LAYERS[1], LAYERS[6], LAYERS[16]]
LOWER = [LAYERS[13], LAYERS[4], LAYERS[11]]
TOLERANCES = {"highest": 1e-4, "high": 1e-4, "medium": 1e-2, "bfloat16": 1e-2}
# Kind, channels, rows and columns, kernel, stride, padding
POOLS = [("max", 64, 112, 3, 2, 1), ("max", 192, 28, 3, 1, 1), ("max", 32, 28, 2, 2, 0),
         ("avg", 1024, 7, 7, 7, 0), ("max", 832, 7, 3, 1, 1), ("max", 256, 27, 3, 2, 0),
         ("avg", 512, 14, 5, 3, 0)]  # fmt: skip


def records(run: Run) -> Iterator[Record]:
    return compare("conv", cases(run.quick), run)


def cases(quick: bool) -> Iterator[Case]:
    for layer in QUICK if quick else LAYERS:
        for last in (False, True):
            yield _convolution(layer, last, PASSES)
    for layer in () if quick else BY_PASS:
        for one in PASSES:
            yield _convolution(layer, False, (one,))
    for layer in LOWER[2:] if quick else LOWER:
        for kind in ("high", "medium", "bfloat16"):
            yield _convolution(layer, True, PASSES, kind)
    for pool in POOLS[2:4] if quick else POOLS:
        for last in (False, True):
            yield _pooling(pool, last)


def _convolution(layer: Layer, last: bool, passes: tuple[str, ...], kind: str = "highest") -> Case:
    """`kind` is a precision of float32, or the type of all arrays."""
    which = ("" if passes == PASSES else f" {passes[0]}") + (
        "" if kind == "highest" else f" {kind}"
    )
    made = {
        "thalweg": functools.partial(_ours, layer, last, passes, kind),
        "torch": functools.partial(_torch, layer, last, passes, kind),
    }
    if kind == "highest":
        made["jax"] = functools.partial(_jax, layer, last, passes)
    name = f"{layer.name}{' channels last' * last}{which}"
    return Case(name, made, TOLERANCES[kind], Work(layer.flops * len(passes)))


def _ours(layer: Layer, last: bool, passes: tuple[str, ...], kind: str) -> Side:
    import thalweg as tw
    from thalweg import _core

    a = layer.arrays(last, kind)
    precision = "highest" if kind == "bfloat16" else kind
    if kind == "bfloat16":
        import ml_dtypes

        a = {key: value.astype(ml_dtypes.bfloat16) for key, value in a.items()}
    x, w, b, dy = (a[key] for key in ("x", "w", "b", "dy"))
    stride, padding = layer.stride, layer.padding
    each: dict[str, Any] = {
        "stride": (stride,) * 2, "padding": (padding,) * 4, "dilation": (1, 1), "groups": 1,
        "precision": precision,
    }  # fmt: skip
    calls = {
        "forward": lambda: [tw.conv2d(x, w, b, stride, padding, precision=precision)],
        "data gradient": lambda: [_core.conv2d_data_gradient(dy, w, x.shape[2:], **each)],
        "weight gradient": lambda: [_core.conv2d_weight_gradient(dy, x, w.shape[2:], **each)],
        "gradients": lambda: tw.conv2d_backward(dy, x, w, stride, padding, precision=precision),
    }
    return _in_turn(calls, passes)


def _torch(layer: Layer, last: bool, passes: tuple[str, ...], kind: str) -> Side:
    import torch

    a = {key: torch.from_numpy(value) for key, value in layer.arrays(last, kind).items()}
    if kind == "bfloat16":
        a = {key: value.bfloat16() for key, value in a.items()}
    x, w, b, dy = (a[key] for key in ("x", "w", "b", "dy"))
    bias = [layer.fan_out]
    geometry = [(layer.stride,) * 2, (layer.padding,) * 2, (1, 1), False, (0, 0), 1]

    def backward(*wanted: bool) -> list[Any]:
        grads = torch.ops.aten.convolution_backward(dy, x, w, bias, *geometry, wanted)
        return [g for g in grads if g is not None]

    calls = {
        "forward": lambda: [torch.conv2d(x, w, b, layer.stride, layer.padding)],
        "data gradient": lambda: backward(True, False, False),
        "weight gradient": lambda: backward(False, True, False),
        "gradients": lambda: backward(True, True, True),
    }
    return _in_turn(calls, passes, lambda t: t.float() if kind == "bfloat16" else t)


def _jax(layer: Layer, last: bool, passes: tuple[str, ...]) -> Side:
    import jax
    import jax.numpy as jnp

    kind = "NHWC" if last else "NCHW"
    a = layer.arrays(last)
    x, w, dy = (jnp.asarray(_channels_last(a[k]) if last else a[k]) for k in ("x", "w", "dy"))
    b = jnp.asarray(a["b"])

    def forward(x: Any, w: Any, b: Any) -> Any:
        steps, around = (layer.stride,) * 2, [(layer.padding,) * 2] * 2
        numbers = (kind, "OHWI" if last else "OIHW", kind)
        y = jax.lax.conv_general_dilated(x, w, steps, around, dimension_numbers=numbers)
        return y + (b if last else b[:, None, None])

    def gradients(x: Any, w: Any, b: Any, dy: Any) -> Any:
        return jax.vjp(forward, x, w, b)[1](dy)

    jitted = {
        "forward": jax.jit(lambda x, w, b, dy: [forward(x, w, b)]),
        "data gradient": jax.jit(lambda *arrays: gradients(*arrays)[:1]),
        "weight gradient": jax.jit(lambda *arrays: gradients(*arrays)[1:2]),
        "gradients": jax.jit(gradients),
    }
    calls = {
        name: functools.partial(lambda f: jax.block_until_ready(f(x, w, b, dy)), f)
        for name, f in jitted.items()
    }
    return _in_turn(
        calls, passes, lambda t: np.moveaxis(np.asarray(t), 3, 1) if t.ndim == 4 and last else t
    )


def _in_turn(
    calls: dict[str, Callable[[], Any]],
    passes: tuple[str, ...],
    plain: Callable[[Any], Any] = lambda t: t,
) -> Side:
    """All passes are the forward one, then all gradients in one call."""
    chosen = [calls[name] for name in (("forward", "gradients") if passes == PASSES else passes)]
    last: list[Any] = []

    def call() -> None:
        last[:] = [result for function in chosen for result in function()]

    return Side(call, lambda: [_shown(np.asarray(plain(t)).astype(np.float32)) for t in last])


def _shown(x: Array) -> Array:
    """Every eighth image of large results is compared."""
    return x[::8] if x.size > MUCH else x


def _channels_last(x: Array) -> Array:
    return x.transpose(0, 2, 3, 1)


# --- pooling -------------------------------------------------------------------------------------
Pool = tuple[str, int, int, int, int, int]


def _pooling(pool: Pool, last: bool) -> Case:
    kind, channels, size, kernel, stride, padding = pool
    sides = {"thalweg": _ours_pool, "torch": _torch_pool}
    made = {impl: functools.partial(side, pool, last) for impl, side in sides.items()}
    inputs, outputs = size**2, ((size + 2 * padding - kernel) // stride + 1) ** 2
    moved = 4.0 * BATCH * channels * 2 * (inputs + outputs)
    name = f"{kind} pool {channels}x{size}x{size} {kernel}x{kernel} /{stride}"
    return Case(f"{name}{' channels last' * last}", made, 1e-5, Work(bytes=moved, footprint=moved))


def _pool_arrays(pool: Pool, last: bool) -> tuple[Array, Array]:
    _, channels, size, kernel, stride, padding = pool
    rng = np.random.default_rng(0)
    pair = []
    for n in (size, (size + 2 * padding - kernel) // stride + 1):
        shape = (BATCH, n, n, channels) if last else (BATCH, channels, n, n)
        values = rng.standard_normal(shape, np.float32)
        pair.append(values.transpose(0, 3, 1, 2) if last else values)
    return pair[0], pair[1]


def _ours_pool(pool: Pool, last: bool) -> Side:
    import thalweg as tw

    kind, _, _, *window = pool
    x, dy = _pool_arrays(pool, last)
    result: list[Any] = []

    def call() -> None:
        if kind == "max":
            y, saved = tw.max_pool2d(x, *window)
            result[:] = [y, tw.max_pool2d_backward(dy, x, saved)]
        else:
            result[:] = [tw.avg_pool2d(x, *window), tw.avg_pool2d_backward(dy, x, *window)]

    return Side(call, lambda: list(result))


def _torch_pool(pool: Pool, last: bool) -> Side:
    import torch

    kind, _, _, *window = pool
    kernel, stride, padding = ([n, n] for n in window)
    x, dy = (torch.from_numpy(array) for array in _pool_arrays(pool, last))
    aten = torch.ops.aten
    result: list[Any] = []

    def call() -> None:
        if kind == "max":
            y, places = aten.max_pool2d_with_indices(x, kernel, stride, padding)
            dx = aten.max_pool2d_with_indices_backward(
                dy, x, kernel, stride, padding, [1, 1], False, places
            )
        else:
            y = aten.avg_pool2d(x, kernel, stride, padding)
            dx = aten.avg_pool2d_backward(dy, x, kernel, stride, padding, False, True, None)
        result[:] = [y, dx]

    return Side(call, lambda: [t.numpy() for t in result])
