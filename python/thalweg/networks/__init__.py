"""Networks of the field's history and small ones, built from `nn`."""

from __future__ import annotations

from collections.abc import Callable

from .. import nn
from .alexnet import alexnet
from .googlenet import (
    INCEPTION_WIDTHS,
    AuxiliaryLoss,
    GoogLeNet,
    GoogLeNetOutputs,
    googlenet,
    inception,
    small_inception,
)
from .lenet import lenet
from .residual import BasicBlock, ResNet, residual_net, resnet18

# name -> builder and the shape of one input
NETWORKS: dict[str, tuple[Callable[..., nn.Module], tuple[int, int, int]]] = {
    "lenet": (lenet, (1, 28, 28)),
    "alexnet": (alexnet, (3, 227, 227)),
    "googlenet": (googlenet, (3, 224, 224)),
    "resnet18": (resnet18, (3, 224, 224)),
    "residual": (residual_net, (3, 32, 32)),
    "inception": (small_inception, (3, 32, 32)),
}

__all__ = [
    "INCEPTION_WIDTHS",
    "NETWORKS",
    "AuxiliaryLoss",
    "BasicBlock",
    "GoogLeNet",
    "GoogLeNetOutputs",
    "ResNet",
    "alexnet",
    "googlenet",
    "inception",
    "lenet",
    "residual_net",
    "resnet18",
    "small_inception",
]
