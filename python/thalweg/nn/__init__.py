"""Layers, losses and containers; names, state keys and shapes are PyTorch's."""

from . import init
from .activation import (
    GELU,
    Identity,
    LeakyReLU,
    LogSoftmax,
    ReLU,
    Sigmoid,
    Softmax,
    Softplus,
    Tanh,
)
from .container import Concat, Flatten, ModuleList, Residual, Sequential
from .conv import Conv2d
from .fusion import fuse, fuse_conv_bn_eval, fuse_linear_bn_eval
from .linear import BlockLinear, Linear
from .loss import BCEWithLogitsLoss, CrossEntropyLoss, HuberLoss, Loss, MSELoss, NLLLoss
from .module import Module
from .norm import BatchNorm, BatchNorm1d, BatchNorm2d, LayerNorm, SyncBatchNorm
from .parameter import Parameter
from .pool import AvgPool2d, GlobalAvgPool2d, LocalResponseNorm, MaxPool2d
from .regularisation import Dropout

__all__ = [
    "GELU",
    "AvgPool2d",
    "BCEWithLogitsLoss",
    "BatchNorm",
    "BatchNorm1d",
    "BatchNorm2d",
    "BlockLinear",
    "Concat",
    "Conv2d",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "GlobalAvgPool2d",
    "HuberLoss",
    "Identity",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LocalResponseNorm",
    "LogSoftmax",
    "Loss",
    "MSELoss",
    "MaxPool2d",
    "Module",
    "ModuleList",
    "NLLLoss",
    "Parameter",
    "ReLU",
    "Residual",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "SyncBatchNorm",
    "Tanh",
    "fuse",
    "fuse_conv_bn_eval",
    "fuse_linear_bn_eval",
    "init",
]
