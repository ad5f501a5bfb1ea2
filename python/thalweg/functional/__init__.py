"""Operations: forward and backward of each, side by side.

Every function takes tensors or arrays of any library. With a tensor among the inputs the result is
a tensor and the operation is recorded; with arrays alone the result is a NumPy array and the call
goes straight to the kernel.
"""

from __future__ import annotations

from .activation import (
    gelu,
    gelu_backward,
    leaky_relu,
    leaky_relu_backward,
    relu,
    relu_backward,
    sigmoid,
    sigmoid_backward,
    softplus,
    softplus_backward,
    tanh,
    tanh_backward,
)
from .differentiate import grad
from .elementwise import (
    abs,  # noqa: A004
    add,
    clip,
    div,
    erf,
    exp,
    log,
    maximum,
    minimum,
    mul,
    neg,
    pow,  # noqa: A004
    reciprocal,
    sign,
    sqrt,
    square,
    sub,
    where,
)
from .loss import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    huber_loss,
    mse_loss,
    nll_loss,
    softmax_cross_entropy,
)
from .normalisation import (
    batch_norm,
    batch_norm_backward,
    dropout,
    layer_norm,
    sync_batch_norm,
)
from .product import block_linear, linear, matmul
from .reduction import (
    log_softmax,
    log_softmax_backward,
    logsumexp,
    max,  # noqa: A004
    mean,
    min,  # noqa: A004
    norm,
    softmax,
    softmax_backward,
    std,
    sum_squares,
    var,
)
from .shape import (
    broadcast_to,
    cast,
    concatenate,
    copy,
    index,
    permute,
    reshape,
    stack,
    sum,  # noqa: A004
    transpose,
)

__all__ = [name for name in dir() if not name.startswith("_") and name != "annotations"]
