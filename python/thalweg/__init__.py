"""thalweg: neural networks on NumPy arrays, with kernels of its own.

`import thalweg as tw` loads NumPy and the compiled core; training, data, plotting and distribution
are loaded when their names are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as _np

from . import functional, nn, random
from ._core import (
    available_isas,
    get_matmul_precision,
    get_num_threads,
    has_cuda,
    isa,
    set_matmul_precision,
    set_num_threads,
    use_isa,
)
from .autograd import enable_grad, is_grad_enabled, no_grad, set_grad_enabled
from .creation import (
    arange,
    empty,
    empty_like,
    eye,
    full,
    linspace,
    ones,
    ones_like,
    rand,
    rand_like,
    randn,
    randn_like,
    tensor,
    zeros,
    zeros_like,
)
from .functional import (
    abs,
    add,
    batch_norm,
    batch_norm_backward,
    binary_cross_entropy_with_logits,
    block_linear,
    broadcast_to,
    cast,
    clip,
    concatenate,
    copy,
    cross_entropy,
    div,
    dropout,
    erf,
    exp,
    gelu,
    gelu_backward,
    grad,
    huber_loss,
    index,
    layer_norm,
    leaky_relu,
    leaky_relu_backward,
    linear,
    log,
    log_softmax,
    log_softmax_backward,
    logsumexp,
    matmul,
    max,
    maximum,
    mean,
    min,
    minimum,
    mse_loss,
    mul,
    neg,
    nll_loss,
    norm,
    permute,
    pow,
    reciprocal,
    relu,
    relu_backward,
    reshape,
    sigmoid,
    sigmoid_backward,
    sign,
    softmax,
    softmax_backward,
    softmax_cross_entropy,
    softplus,
    softplus_backward,
    sqrt,
    square,
    stack,
    std,
    sub,
    sum,
    sum_squares,
    sync_batch_norm,
    tanh,
    tanh_backward,
    transpose,
    var,
    where,
)
from .random import Generator, manual_seed
from .tensor import Tensor

if TYPE_CHECKING:
    from . import callbacks, data, distributed, optim, serialization
    from .serialization import load, save
    from .trainer import Trainer

float32 = _np.float32
float64 = _np.float64

__all__ = [
    "Generator",
    "Tensor",
    "Trainer",
    "abs",
    "add",
    "arange",
    "available_isas",
    "batch_norm",
    "batch_norm_backward",
    "binary_cross_entropy_with_logits",
    "block_linear",
    "broadcast_to",
    "callbacks",
    "cast",
    "clip",
    "concatenate",
    "copy",
    "cross_entropy",
    "data",
    "distributed",
    "div",
    "dropout",
    "empty",
    "empty_like",
    "enable_grad",
    "erf",
    "exp",
    "eye",
    "float32",
    "float64",
    "full",
    "functional",
    "gelu",
    "gelu_backward",
    "get_matmul_precision",
    "get_num_threads",
    "grad",
    "has_cuda",
    "huber_loss",
    "index",
    "is_grad_enabled",
    "isa",
    "layer_norm",
    "leaky_relu",
    "leaky_relu_backward",
    "linear",
    "linspace",
    "load",
    "log",
    "log_softmax",
    "log_softmax_backward",
    "logsumexp",
    "manual_seed",
    "matmul",
    "max",
    "maximum",
    "mean",
    "min",
    "minimum",
    "mse_loss",
    "mul",
    "neg",
    "nll_loss",
    "nn",
    "no_grad",
    "norm",
    "ones",
    "ones_like",
    "optim",
    "permute",
    "pow",
    "rand",
    "rand_like",
    "randn",
    "randn_like",
    "random",
    "reciprocal",
    "relu",
    "relu_backward",
    "reshape",
    "save",
    "serialization",
    "set_grad_enabled",
    "set_matmul_precision",
    "set_num_threads",
    "sigmoid",
    "sigmoid_backward",
    "sign",
    "softmax",
    "softmax_backward",
    "softmax_cross_entropy",
    "softplus",
    "softplus_backward",
    "sqrt",
    "square",
    "stack",
    "std",
    "sub",
    "sum",
    "sum_squares",
    "sync_batch_norm",
    "tanh",
    "tanh_backward",
    "tensor",
    "transpose",
    "use_isa",
    "var",
    "where",
    "zeros",
    "zeros_like",
]

# Loaded at first use: name -> module that defines it, or None for a submodule of that name.
_LAZY = {
    "callbacks": None,
    "data": None,
    "distributed": None,
    "estimators": None,
    "optim": None,
    "serialization": None,
    "Trainer": "trainer",
    "load": "serialization",
    "save": "serialization",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("thalweg")
    if name not in _LAZY:
        raise AttributeError(f"module 'thalweg' has no attribute {name!r}")
    home = _LAZY[name]
    module = importlib.import_module(f".{home or name}", __name__)
    value = module if home is None else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, "__version__"})
