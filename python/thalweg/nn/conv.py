"""Convolutional layers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import functional as F
from ..functional.convolution import Size, paddings, pair
from ..random import Generator
from .linear import _check_sizes, _uniform
from .module import Module


class Conv2d(Module):
    """y = x * weight + bias, see `functional.conv2d`.

    Args:
        in_channels, out_channels: C and O, multiples of `groups`.
        kernel_size, stride, dilation: one integer, or those of height and width.
        padding: the same, "same" or "valid".
        groups: channels fall into that many groups, each of which sees its own alone.
        bias: whether there is one.
        padding_mode: "zeros".
        dtype: float32 (default) or float64.
        generator: source of the initial values.

    Shape:
        x: (N, C, H, W), y: (N, O, H', W'), weight: (O, C / groups, kernel height, kernel width),
        bias: (O,).

    Initial values are PyTorch's: all uniform in ±1/sqrt(fan in), with fan in = C / groups times
    the elements of a kernel.
    """

    fuses = ("activation",)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        dtype: npt.DTypeLike = np.float32,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        _check_sizes("Conv2d", in_channels=in_channels, out_channels=out_channels, groups=groups)
        for name, size in (("in_channels", in_channels), ("out_channels", out_channels)):
            if size % groups:
                raise ValueError(
                    f"Conv2d: {name} must be a multiple of groups={groups}, got {size}"
                )
        if padding_mode != "zeros":
            raise ValueError(
                f"Conv2d: padding_mode must be 'zeros', got {padding_mode!r}; pad x before the call"
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = pair("kernel_size", kernel_size)
        self.stride = pair("stride", stride)
        self.dilation = pair("dilation", dilation)
        self.padding = padding if isinstance(padding, str) else pair("padding", padding)
        self.groups = groups
        _check_sizes("Conv2d", kernel_size=min(self.kernel_size), stride=min(self.stride))
        _check_sizes("Conv2d", dilation=min(self.dilation))
        if min(paddings(self.padding, self.kernel_size, self.stride, self.dilation)) < 0:
            raise ValueError(f"Conv2d: padding must be at least 0, got {padding}")
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        bound = 1 / math.sqrt(math.prod(shape[1:]))
        self.weight = _uniform(shape, bound, dtype, generator)
        self.bias = _uniform((out_channels,), bound, dtype, generator) if bias else None

    def forward(self, x: Any, activation: str | None = None) -> Any:
        options = (self.stride, self.padding, self.dilation, self.groups)
        return F.conv2d(x, self.weight, self.bias, *options, activation=activation)

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        text += f", stride={self.stride}"
        for name, default in (("padding", (0, 0)), ("dilation", (1, 1)), ("groups", 1)):
            value = getattr(self, name)
            text += f", {name}={value!r}" if value != default else ""
        return text if self.bias is not None else text + ", bias=False"
