"""Batch normalisation folded into the layer before it, for inference.

With fixed statistics, BatchNorm after w x + b is one more such layer:

    w' = s w,  b' = s (b - running_mean) + beta,  s = gamma / sqrt(running_var + eps)

for each output channel (Jacob et al. 2018, section 3.2).
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import numpy as np

from .container import Sequential
from .conv import Conv2d
from .linear import Linear
from .module import M
from .norm import BatchNorm
from .parameter import Parameter

Layer = TypeVar("Layer", bound="Linear | Conv2d")


def fuse(model: M) -> M:
    """A copy of `model` without the BatchNorms that follow a Linear or Conv2d in a Sequential.

    These layers' weights and biases contain them, computed in float64 and rounded once. An output
    that sums K products differs from the unfused one by rounding: at most
    (2 K + 10) u (|s| (|w| |x| + |b| + |running_mean|) + |beta|), with u = 2^-24 in float32.
    Other modules, their names, and their parameters' values stay; `model` is left alone.

    Args:
        model: in evaluation mode. A Linear before a BatchNorm is taken to see (N, I).

    Raises:
        ValueError: a BatchNorm in training mode or without running statistics, named by its path;
            sizes that do not fit.

    >>> from thalweg import nn
    >>> nn.fuse(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU()).eval())
    Sequential(
      (0): Linear(4, 3, bias=True)
      (2): ReLU()
    )
    """
    fused = copy.deepcopy(model)
    for path, module in list(fused.named_modules()):
        if isinstance(module, Sequential):
            _fuse_sequence(module, path)
    return fused


def fuse_linear_bn_eval(linear: Linear, bn: BatchNorm) -> Linear:
    """One Linear that computes bn(linear(x)) for x of shape (N, I); see `fuse`."""
    return _fold(linear, bn, "fuse_linear_bn_eval: bn")


def fuse_conv_bn_eval(conv: Conv2d, bn: BatchNorm) -> Conv2d:
    """One Conv2d that computes bn(conv(x)); see `fuse`."""
    return _fold(conv, bn, "fuse_conv_bn_eval: bn")


def _fuse_sequence(sequence: Sequential, path: str) -> None:
    before: tuple[str, Any] = ("", None)
    for name, module in list(sequence.named_children()):
        if isinstance(module, BatchNorm) and isinstance(before[1], (Linear, Conv2d)):
            where = f"fuse: {path}.{name}" if path else f"fuse: {name}"
            folded = _fold(before[1], module, where)
            sequence._modules[before[0]] = folded
            delattr(sequence, name)
            before = (before[0], folded)
        else:
            before = (name, module)


def _fold(layer: Layer, bn: BatchNorm, where: str) -> Layer:
    kind = type(bn).__name__
    if bn.training:
        raise ValueError(f"{where} ({kind}) is in training mode; call .eval() first")
    if bn.running_mean is None:
        raise ValueError(f"{where} ({kind}) has no running statistics to fold")
    weight = layer.weight
    channels, expected = weight.shape[0], bn.num_features
    if channels != expected:
        raise ValueError(f"{where} ({kind}) has {expected} channels, its layer gives {channels}")

    def wide(value: Any, otherwise: float) -> Any:
        array = value.data if isinstance(value, Parameter) else value
        return otherwise if array is None else array.astype(np.float64)

    scale = wide(bn.weight, 1.0) / np.sqrt(wide(bn.running_var, 1.0) + bn.eps)
    bias = (wide(layer.bias, 0.0) - wide(bn.running_mean, 0.0)) * scale + wide(bn.bias, 0.0)
    rows = scale.reshape(-1, *[1] * (weight.ndim - 1))
    fused = copy.deepcopy(layer)
    fused.weight = Parameter((wide(weight, 1.0) * rows).astype(weight.dtype), weight.requires_grad)
    fused.bias = Parameter(bias.astype(weight.dtype), weight.requires_grad)
    return fused
