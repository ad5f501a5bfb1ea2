"""Pooling layers and local response normalisation. What they compute is in `functional.pooling`."""

from __future__ import annotations

from typing import Any

from .. import functional as F
from ..functional.pooling import Pair
from .module import Module


class _Pool2d(Module):
    """The windows that both kinds of pooling have."""

    def __init__(self, kernel_size: Pair, stride: Pair | None, padding: Pair, ceil: bool) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.ceil_mode = ceil

    def extra_repr(self) -> str:
        return f"{self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxPool2d(_Pool2d):
    """The largest element of each window; options are those of `functional.max_pool2d`.

    Args:
        activation: None or "relu", applied in the same pass: `MaxPool2d(2, activation="relu")` is
            `MaxPool2d(2)` and `ReLU()`.

    Shape:
        x: (N, C, H, W), y: (N, C, OH, OW).
    """

    fuses = ("activation",)

    def __init__(
        self,
        kernel_size: Pair,
        stride: Pair | None = None,
        padding: Pair = 0,
        dilation: Pair = 1,
        *,
        ceil_mode: bool = False,
        activation: str | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode)
        self.dilation, self.activation = dilation, activation

    def forward(self, x: Any, activation: str | None = None) -> Any:
        window = (self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)
        return F.max_pool2d(x, *window, activation=self.activation or activation)[0]


class AvgPool2d(_Pool2d):
    """The mean of each window; options are those of `functional.avg_pool2d`.

    Shape:
        x: (N, C, H, W), y: (N, C, OH, OW).
    """

    def __init__(
        self,
        kernel_size: Pair,
        stride: Pair | None = None,
        padding: Pair = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode)
        self.count_include_pad = count_include_pad

    def forward(self, x: Any) -> Any:
        window = (self.kernel_size, self.stride, self.padding)
        return F.avg_pool2d(x, *window, self.ceil_mode, self.count_include_pad)


class GlobalAvgPool2d(Module):
    """The mean over all positions: (N, C, H, W) -> (N, C, 1, 1)."""

    def forward(self, x: Any) -> Any:
        return F.global_avg_pool2d(x)


class LocalResponseNorm(Module):
    """Division by the activity of neighbouring channels; see `functional.local_response_norm`.

    Shape:
        x, y: (N, C, H, W).
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k

    def forward(self, x: Any) -> Any:
        return F.local_response_norm(x, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
