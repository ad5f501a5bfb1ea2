"""Layers that are one matrix product."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import functional as F
from ..backend import aligned_empty, check_float
from ..random import Generator
from . import init
from .module import Module
from .parameter import Parameter


def _uniform(
    shape: tuple[int, ...], bound: float, dtype: npt.DTypeLike, generator: Generator | None
) -> Parameter:
    parameter = Parameter(aligned_empty(shape, check_float(dtype, "dtype")))
    init.uniform_(parameter, -bound, bound, generator=generator)
    return parameter


def _check_sizes(name: str, **sizes: int) -> None:
    for argument, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name}: {argument} must be at least 1, got {size}")


class Linear(Module):
    """y = x @ weight.T + bias.

    Args:
        in_features, out_features: I and O.
        bias: whether there is one.
        dtype: float32 (default) or float64.
        generator: source of the initial values.

    Shape:
        x: (..., I), y: (..., O), weight: (O, I), bias: (O,).

    Initial values are PyTorch's: all uniform in ±1/sqrt(I).
    """

    fuses = ("activation",)

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        dtype: npt.DTypeLike = np.float32,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        _check_sizes("Linear", in_features=in_features, out_features=out_features)
        self.in_features = in_features
        self.out_features = out_features
        bound = 1 / math.sqrt(in_features)
        self.weight = _uniform((out_features, in_features), bound, dtype, generator)
        self.bias = _uniform((out_features,), bound, dtype, generator) if bias else None

    def forward(self, x: Any, activation: str | None = None) -> Any:
        return F.linear(x, self.weight, self.bias, activation=activation)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"


class BlockLinear(Module):
    """A linear layer with local connectivity: its weight matrix is block-diagonal.

    Args:
        in_features, out_features: multiples of `groups`.
        groups: G; group g of the inputs is seen by group g of the outputs alone.

    Shape:
        x: (..., I), y: (..., O), weight: (G, O/G, I/G), bias: (O,).

    Initial values are uniform in ±1/sqrt(I/G).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        groups: int,
        bias: bool = True,
        *,
        dtype: npt.DTypeLike = np.float32,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        _check_sizes(
            "BlockLinear", in_features=in_features, out_features=out_features, groups=groups
        )
        for name, size in (("in_features", in_features), ("out_features", out_features)):
            if size % groups:
                raise ValueError(
                    f"BlockLinear: {name} must be a multiple of groups={groups}, got {size}"
                )
        self.in_features = in_features
        self.out_features = out_features
        self.groups = groups
        shape = (groups, out_features // groups, in_features // groups)
        bound = 1 / math.sqrt(shape[2])
        self.weight = _uniform(shape, bound, dtype, generator)
        self.bias = _uniform((out_features,), bound, dtype, generator) if bias else None

    def forward(self, x: Any) -> Any:
        return F.block_linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, groups={self.groups}"
