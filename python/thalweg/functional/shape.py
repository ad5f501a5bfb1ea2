"""Operations that move or add numbers: views, copies, sums. All are linear.

Each gradient is another operation of this file: a sum's is a broadcast, a slice's is a scatter.
Views share memory with their input, as in NumPy.
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from .. import _core
from ..autograd import Gradients
from ..backend import check_float
from ..recording import active, constant
from ..variable import array_of, data_of, needs_grad, record

T = TypeVar("T")
Axis = int | Sequence[int] | None


def reshape(x: T, shape: int | Sequence[int]) -> T:
    """The same elements in another shape; one entry may be -1."""
    array = array_of(x)
    y = array.reshape(shape)
    if active() is not None and not np.may_share_memory(y, array):
        y = _core.copy(array).reshape(shape)  # this layout needs a copy, which has to be recorded
    return record(y, lambda dy: (reshape(dy, array.shape),), x)


def permute(x: T, axes: Sequence[int]) -> T:
    """Axis i of the result is axis `axes[i]` of x, a view."""
    array = array_of(x)
    inverse = np.argsort([axis % array.ndim for axis in axes]).tolist()
    return record(array.transpose(axes), lambda dy: (permute(dy, inverse),), x)


def transpose(x: T, axis0: int = -2, axis1: int = -1) -> T:
    """Two axes swapped, a view."""
    y = np.swapaxes(array_of(x), axis0, axis1)
    return record(y, lambda dy: (transpose(dy, axis0, axis1),), x)


def broadcast_to(x: T, shape: Sequence[int]) -> T:
    """x repeated along new and length-1 axes, a read-only view."""
    array = array_of(x)
    y = np.broadcast_to(array, tuple(shape))
    return record(y, lambda dy: (sum_to(dy, array.shape),), x)


def sum_to(x: T, shape: Sequence[int]) -> T:
    """x summed over the axes along which `shape` would have been broadcast to x's shape."""
    array = array_of(x)
    if array.shape == tuple(shape):
        return x
    lead = array.ndim - len(shape)
    axes = [*range(lead)]
    axes += [lead + i for i, n in enumerate(shape) if n == 1 and array.shape[lead + i] != 1]
    return reshape(sum(x, axes) if axes else x, shape)


def sum(x: T, axis: Axis = None, keepdims: bool = False) -> T:
    """Sum over `axis` (all axes by default), in an order that depends on the shape alone.

    >>> sum(np.ones((2, 3), np.float32), axis=0)
    array([2., 2., 2.], dtype=float32)
    """
    shape = array_of(x).shape
    y = _core.sum(data_of(x), axis, keepdims=keepdims)
    return record(y, lambda dy: (expand_reduced(dy, shape, axis),), x)


def expand_reduced(y: T, shape: tuple[int, ...], axis: Axis) -> T:
    """The result of a reduction of an array of `shape` over `axis`, repeated to that shape."""
    return broadcast_to(reshape(y, reduced_shape(shape, axis)), shape)


def reduced_shape(shape: tuple[int, ...], axis: Axis) -> tuple[int, ...]:
    """`shape` with 1 for every axis in `axis`."""
    if axis is None:
        return (1,) * len(shape)
    axes = {a % len(shape) for a in ([axis] if isinstance(axis, (int, np.integer)) else axis)}
    return tuple(1 if i in axes else n for i, n in enumerate(shape))


def index(x: T, key: Any) -> T:
    """`x[key]` with NumPy's meaning: a view for slices and integers, a copy for arrays."""
    array = array_of(x)
    y = array[ending(key)] if is_basic(key) else np.asarray(array[key])
    return record(y, lambda dy: (scatter(dy, key, array.shape),), x)


def is_basic(key: Any) -> bool:
    """Whether NumPy gives a view for this key."""
    parts = key if isinstance(key, tuple) else (key,)
    return all(
        part is None
        or part is Ellipsis
        or (isinstance(part, (int, np.integer, slice)) and not isinstance(part, bool))
        for part in parts
    )


def ending(key: Any) -> tuple[Any, ...]:
    """A basic key with an ellipsis, so that one element is an array too."""
    parts = key if isinstance(key, tuple) else (key,)
    return parts if Ellipsis in parts else (*parts, Ellipsis)


def scatter(x: T, key: Any, shape: tuple[int, ...]) -> T:
    """Zeros of `shape` to which x was added at `key`, repeated positions repeatedly."""
    array = array_of(x)
    y = constant(np.zeros(shape, array.dtype))
    if is_basic(key):
        _core.copy(array, out=y[ending(key)])
    else:
        np.add.at(y, key, array)
    return record(y, lambda dy: (index(dy, key),), x)


def concatenate(xs: Sequence[T], axis: int = 0) -> T:
    """Arrays joined along an existing axis."""
    arrays = _same_dtype("concatenate", xs)
    axis %= builtins.max(arrays[0].ndim, 1)
    if builtins.all(channels_last(array) for array in arrays):
        inner = concatenate([permute(x, (0, 2, 3, 1)) for x in xs], (0, 3, 1, 2)[axis])
        return permute(inner, (0, 3, 1, 2))
    ends = np.cumsum([array.shape[axis] for array in arrays]).tolist()
    cuts = zip([0, *ends[:-1]], ends, strict=True)
    keys = [(slice(None),) * axis + (slice(start, stop),) for start, stop in cuts]
    y = _joined(arrays, keys) if active() is not None else np.concatenate(arrays, axis)

    def backward(dy: Any) -> Gradients:
        return tuple(index(dy, k) if needs_grad(x) else None for x, k in zip(xs, keys, strict=True))

    return record(y, backward, *xs)


def channels_last(array: Any) -> bool:
    """Whether the channels of an (N, C, H, W) array are neighbours in memory."""
    return bool(
        array.ndim == 4
        and array.shape[1] > 1
        and array.strides[1] == array.itemsize
        and not array.flags.c_contiguous
    )


def stack(xs: Sequence[T], axis: int = 0) -> T:
    """Arrays of one shape joined along a new axis."""
    arrays = _same_dtype("stack", xs)
    lead = (slice(None),) * (axis % (arrays[0].ndim + 1))
    if active() is not None:
        return concatenate(
            [reshape(x, np.expand_dims(a, axis).shape) for x, a in zip(xs, arrays, strict=True)],
            len(lead),
        )
    y = np.stack(arrays, axis)

    def backward(dy: Any) -> Gradients:
        return tuple(index(dy, (*lead, i)) if needs_grad(x) else None for i, x in enumerate(xs))

    return record(y, backward, *xs)


def _joined(arrays: list[Any], keys: list[tuple[slice, ...]]) -> Any:
    """`np.concatenate` in operations that are recorded; keys[i] is where arrays[i] goes."""
    shape = list(arrays[0].shape)
    axis = len(keys[0]) - 1
    shape[axis] = keys[-1][axis].stop
    y = _core.empty(shape, str(arrays[0].dtype))
    for array, key in zip(arrays, keys, strict=True):
        _core.copy(array, out=y[key])
    return y


def _same_dtype(name: str, xs: Sequence[Any]) -> list[Any]:
    arrays = [array_of(x) for x in xs]
    if not arrays:
        raise ValueError(f"{name}: expected at least one array, got none")
    for i, array in enumerate(arrays):
        if array.dtype != arrays[0].dtype:
            raise TypeError(
                f"{name}: all arrays must have one dtype, array 0 is {arrays[0].dtype}, "
                f"array {i} is {array.dtype}"
            )
    return arrays


def copy(x: T) -> T:
    """x in memory of its own, C-contiguous."""
    return record(_core.copy(data_of(x)), lambda dy: (dy,), x)


def cast(x: T, dtype: npt.DTypeLike) -> T:
    """x in float32 or float64; the gradient is cast back."""
    array = array_of(x)
    wanted = np.dtype(check_float(dtype, "cast: dtype"))
    if active() is not None and array.dtype != wanted:
        y = _core.cast(array, wanted.name)
    else:
        y = array.astype(wanted, copy=False)
    return record(y, lambda dy: (cast(dy, array.dtype),), x)
