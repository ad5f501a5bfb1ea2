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
from .linear import BlockLinear, Linear
from .loss import BCEWithLogitsLoss, CrossEntropyLoss, HuberLoss, Loss, MSELoss, NLLLoss
from .module import Module
from .norm import BatchNorm, BatchNorm1d, BatchNorm2d, LayerNorm, SyncBatchNorm
from .parameter import Parameter
from .regularisation import Dropout

__all__ = [
    "GELU",
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
    "HuberLoss",
    "Identity",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "Loss",
    "MSELoss",
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
    "init",
]
