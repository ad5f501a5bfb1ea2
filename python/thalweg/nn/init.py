"""Initial values, written into a tensor in place.

Names and meanings are PyTorch's. `fan_in` is the number of inputs of a unit (shape[1] times the
receptive field), `fan_out` the number of units that see an input.
"""

from __future__ import annotations

import math

import numpy as np

from ..autograd import no_grad
from ..random import Generator, default_generator
from ..tensor import Tensor

GAINS = {
    "linear": 1.0,
    "sigmoid": 1.0,
    "tanh": 5 / 3,
    "relu": math.sqrt(2),
    "selu": 3 / 4,
}


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor that keeps the variance through `nonlinearity`; `param` is a leaky slope."""
    if nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + (0.01 if param is None else param) ** 2))
    if nonlinearity not in GAINS:
        expected = ", ".join([*GAINS, "leaky_relu"])
        raise ValueError(f"nonlinearity must be one of {expected}, got {nonlinearity!r}")
    return GAINS[nonlinearity]


def fans(tensor: Tensor) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight of shape (out, in, *receptive field)."""
    if tensor.ndim < 2:
        raise ValueError(f"fan in and out need at least 2 axes, got shape {tensor.shape}")
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


def constant_(tensor: Tensor, value: float) -> Tensor:
    """`value` everywhere."""
    with no_grad():
        return tensor.fill_(value)


def zeros_(tensor: Tensor) -> Tensor:
    """0 everywhere."""
    return constant_(tensor, 0)


def ones_(tensor: Tensor) -> Tensor:
    """1 everywhere."""
    return constant_(tensor, 1)


def normal_(
    tensor: Tensor, mean: float = 0, std: float = 1, *, generator: Generator | None = None
) -> Tensor:
    """N(mean, std**2)."""
    with no_grad():
        return tensor.normal_(mean, std, generator=generator)


def uniform_(
    tensor: Tensor, low: float = 0, high: float = 1, *, generator: Generator | None = None
) -> Tensor:
    """U[low, high)."""
    with no_grad():
        return tensor.uniform_(low, high, generator=generator)


def xavier_uniform_(
    tensor: Tensor, gain: float = 1, *, generator: Generator | None = None
) -> Tensor:
    """U(-a, a) with a = gain * sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio 2010)."""
    bound = gain * math.sqrt(6 / sum(fans(tensor)))
    return uniform_(tensor, -bound, bound, generator=generator)


def xavier_normal_(
    tensor: Tensor, gain: float = 1, *, generator: Generator | None = None
) -> Tensor:
    """N(0, std**2) with std = gain * sqrt(2 / (fan_in + fan_out)) (Glorot & Bengio 2010)."""
    return normal_(tensor, 0, gain * math.sqrt(2 / sum(fans(tensor))), generator=generator)


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"mode must be 'fan_in' or 'fan_out', got {mode!r}")
    fan = fans(tensor)[0 if mode == "fan_in" else 1]
    return calculate_gain(nonlinearity, a) / math.sqrt(fan)


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    *,
    generator: Generator | None = None,
) -> Tensor:
    """U(-b, b) with b = gain * sqrt(3 / fan) (He 2015); `a` is the slope of a leaky relu."""
    bound = math.sqrt(3) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator=generator)


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    *,
    generator: Generator | None = None,
) -> Tensor:
    """N(0, std**2) with std = gain / sqrt(fan) (He 2015); `a` is the slope of a leaky relu."""
    return normal_(tensor, 0, _kaiming_std(tensor, a, mode, nonlinearity), generator=generator)


def lecun_normal_(tensor: Tensor, *, generator: Generator | None = None) -> Tensor:
    """N(0, 1 / fan_in) (LeCun 1998)."""
    return normal_(tensor, 0, 1 / math.sqrt(fans(tensor)[0]), generator=generator)


def lecun_uniform_(tensor: Tensor, *, generator: Generator | None = None) -> Tensor:
    """U(-b, b) with b = sqrt(3 / fan_in), the same variance as `lecun_normal_`."""
    bound = math.sqrt(3 / fans(tensor)[0])
    return uniform_(tensor, -bound, bound, generator=generator)


def orthogonal_(tensor: Tensor, gain: float = 1, *, generator: Generator | None = None) -> Tensor:
    """gain times a uniformly drawn matrix with orthonormal rows or columns (Saxe 2014).

    A tensor of more axes is taken as the matrix (shape[0], the rest).
    """
    rows = tensor.shape[0]
    if tensor.ndim < 2:
        raise ValueError(f"orthogonal_ needs at least 2 axes, got shape {tensor.shape}")
    columns = tensor.numel() // max(rows, 1)
    draw = (generator or default_generator()).numpy.standard_normal((rows, columns))
    q, r = np.linalg.qr(draw.T if rows < columns else draw)
    q *= np.sign(np.diag(r))  # makes the distribution uniform (Mezzadri 2007)
    tensor.data[...] = gain * (q.T if rows < columns else q).reshape(tensor.shape)
    return tensor


def sparse_(
    tensor: Tensor, sparsity: float, std: float = 0.01, *, generator: Generator | None = None
) -> Tensor:
    """N(0, std**2), then a fraction `sparsity` of each column set to 0 (Martens 2010)."""
    if tensor.ndim != 2:
        raise ValueError(f"sparse_ needs 2 axes, got shape {tensor.shape}")
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparse_: sparsity must be in [0, 1], got {sparsity}")
    normal_(tensor, 0, std, generator=generator)
    zeros = math.ceil(sparsity * tensor.shape[0])
    draw = (generator or default_generator()).numpy
    for column in tensor.data.T:
        column[draw.permutation(column.size)[:zeros]] = 0
    return tensor
