"""New tensors. float32 unless `dtype` says otherwise; `seed` draws independently of other draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .backend import Array, ArrayLike, aligned_empty, check_float
from .random import Generator, default_generator
from .tensor import Tensor
from .variable import array_of


def tensor(
    data: ArrayLike, *, dtype: npt.DTypeLike | None = None, requires_grad: bool = False
) -> Tensor:
    """A tensor on a copy of `data`; Python numbers become float32, float arrays keep their dtype.

    Raises:
        TypeError: an array that is neither float32 nor float64, unless `dtype` says what to make
            of it.

    >>> tensor([5.5, 3])
    tensor([5.5, 3. ])
    """
    wrapped = Tensor(data, dtype=dtype)
    return Tensor(wrapped.data.copy(), requires_grad=requires_grad)


def _shape(shape: tuple[Any, ...]) -> tuple[int, ...]:
    if len(shape) == 1 and isinstance(shape[0], Sequence):
        shape = tuple(shape[0])
    for n in shape:
        if not isinstance(n, (int, np.integer)) or n < 0:
            raise ValueError(f"shape must consist of integers >= 0, got {shape}")
    return shape


def _allocate(shape: tuple[Any, ...], dtype: npt.DTypeLike) -> Array:
    return aligned_empty(_shape(shape), check_float(dtype, "dtype"))


def empty(*shape: Any, dtype: npt.DTypeLike = np.float32, requires_grad: bool = False) -> Tensor:
    """A tensor of this shape, `empty(5, 3)` or `empty((5, 3))`, with arbitrary values."""
    return Tensor(_allocate(shape, dtype), requires_grad)


def full(
    shape: int | Sequence[int],
    value: float,
    *,
    dtype: npt.DTypeLike = np.float32,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor with the same value everywhere."""
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    array = _allocate(shape, dtype)
    array.fill(value)
    return Tensor(array, requires_grad)


def zeros(*shape: Any, dtype: npt.DTypeLike = np.float32, requires_grad: bool = False) -> Tensor:
    """A tensor of zeros."""
    return full(_shape(shape), 0, dtype=dtype, requires_grad=requires_grad)


def ones(*shape: Any, dtype: npt.DTypeLike = np.float32, requires_grad: bool = False) -> Tensor:
    """A tensor of ones."""
    return full(_shape(shape), 1, dtype=dtype, requires_grad=requires_grad)


def _generator(seed: int | None) -> Generator:
    return default_generator() if seed is None else Generator(seed)


def rand(
    *shape: Any,
    seed: int | None = None,
    dtype: npt.DTypeLike = np.float32,
    requires_grad: bool = False,
) -> Tensor:
    """Uniform in [0, 1)."""
    out = Tensor(_allocate(shape, dtype)).uniform_(generator=_generator(seed))
    return out.requires_grad_(requires_grad)


def randn(
    *shape: Any,
    seed: int | None = None,
    dtype: npt.DTypeLike = np.float32,
    requires_grad: bool = False,
) -> Tensor:
    """Standard normal."""
    out = Tensor(_allocate(shape, dtype)).normal_(generator=_generator(seed))
    return out.requires_grad_(requires_grad)


def arange(
    start: float,
    stop: float | None = None,
    step: float = 1,
    *,
    dtype: npt.DTypeLike = np.float32,
    requires_grad: bool = False,
) -> Tensor:
    """start, start + step, … up to but without stop; `arange(stop)` starts at 0."""
    low, high = (0, start) if stop is None else (start, stop)
    return Tensor(np.arange(low, high, step).astype(check_float(dtype, "dtype")), requires_grad)


def linspace(
    start: float,
    stop: float,
    steps: int,
    *,
    dtype: npt.DTypeLike = np.float32,
    requires_grad: bool = False,
) -> Tensor:
    """`steps` equally spaced values from start to stop, both included."""
    return Tensor(
        np.linspace(start, stop, steps).astype(check_float(dtype, "dtype")), requires_grad
    )


def eye(n: int, *, dtype: npt.DTypeLike = np.float32, requires_grad: bool = False) -> Tensor:
    """The identity matrix."""
    return Tensor(np.eye(n, dtype=check_float(dtype, "dtype")), requires_grad)


def empty_like(x: Any, *, dtype: npt.DTypeLike | None = None) -> Tensor:
    """`empty` in the shape and dtype of x."""
    array = array_of(x)
    return empty(array.shape, dtype=dtype or array.dtype)


def zeros_like(x: Any, *, dtype: npt.DTypeLike | None = None) -> Tensor:
    """`zeros` in the shape and dtype of x."""
    return empty_like(x, dtype=dtype).zero_()


def ones_like(x: Any, *, dtype: npt.DTypeLike | None = None) -> Tensor:
    """`ones` in the shape and dtype of x."""
    return empty_like(x, dtype=dtype).fill_(1)


def rand_like(x: Any, *, seed: int | None = None, dtype: npt.DTypeLike | None = None) -> Tensor:
    """`rand` in the shape and dtype of x."""
    return empty_like(x, dtype=dtype).uniform_(generator=_generator(seed))


def randn_like(x: Any, *, seed: int | None = None, dtype: npt.DTypeLike | None = None) -> Tensor:
    """`randn` in the shape and dtype of x."""
    return empty_like(x, dtype=dtype).normal_(generator=_generator(seed))
