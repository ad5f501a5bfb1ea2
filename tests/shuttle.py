"""Runs `_core` on a GPU for tests that are written for NumPy arrays.

Every call's arrays are copied to the GPU with their layout and their overlaps, the call is made
there, and what it wrote is copied back. So the CPU's tests, strides, aliasing and `out=` included,
are the GPU's.
"""

from __future__ import annotations

import ctypes
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from thalweg import _core

Array = npt.NDArray[Any]

# Functions without arrays, and those without a CUDA half, whose tests stay on the CPU.
AT_HOME = {"install_cuda", "emulate_cuda", "layer_norm", "layer_norm_backward"}
MOVED = {np.dtype(t) for t in ("f4", "f8", "i4", "i8")}


class DeviceView:
    """Memory on the GPU in the layout of a NumPy array."""

    def __init__(self, like: Array, buffer: Any, offset: int) -> None:
        self.host, self.buffer = like, buffer
        pointer = buffer.__cuda_array_interface__["data"][0] + offset
        self.__cuda_array_interface__ = {
            "shape": like.shape,
            "typestr": like.dtype.str,
            "data": (pointer, not like.flags.writeable),
            "strides": like.strides,
            "version": 3,
            "stream": 1,
        }


def extent(x: Array) -> tuple[int, int]:
    """First and one-past-last byte."""
    reach = [(n - 1) * s for n, s in zip(x.shape, x.strides, strict=True)] if x.size else []
    low = x.ctypes.data + sum(r for r in reach if r < 0)
    return low, x.ctypes.data + sum(r for r in reach if r > 0) + (x.itemsize if x.size else 0)


def host_bytes(low: int, high: int) -> Array:
    return np.ctypeslib.as_array((ctypes.c_uint8 * (high - low)).from_address(low))


class Shipment:
    """The arrays of one call on the GPU. Arrays that overlap share a buffer there."""

    def __init__(self, arrays: Iterable[Array]) -> None:
        self._buffers: list[tuple[int, int, Any]] = []
        intervals: list[list[int]] = []
        arrays = list(arrays)
        for low, high in sorted(map(extent, arrays)):
            if intervals and low < intervals[-1][1]:
                intervals[-1][1] = max(intervals[-1][1], high)
            elif high > low:
                intervals.append([low, high])
        writable = [extent(x) for x in arrays if x.flags.writeable]
        self._written = [any(a >= lo and b <= hi for a, b in writable) for lo, hi in intervals]
        cupy = sys.modules["cupy"]
        for low, high in intervals:
            self._buffers.append((low, high, cupy.asarray(host_bytes(low, high).copy())))
        self._empty = cupy.asarray(np.zeros(1, np.uint8))
        self._views = {id(x): self._place(x) for x in arrays}

    def _place(self, x: Array) -> DeviceView:
        first = extent(x)[0]
        for low, high, buffer in self._buffers:
            if x.size and low <= first < high:
                return DeviceView(x, buffer, x.ctypes.data - low)
        return DeviceView(x, self._empty, 0)

    def out(self, x: Any) -> Any:
        return self._views.get(id(x), x)

    def home(self) -> None:
        for (low, high, buffer), written in zip(self._buffers, self._written, strict=True):
            if written:
                host_bytes(low, high)[:] = buffer.get()


def arrays_in(x: Any) -> Iterable[Array]:
    if isinstance(x, np.ndarray) and x.dtype in MOVED:
        yield x
    elif isinstance(x, (list, tuple)):
        for item in x:
            yield from arrays_in(item)


def replaced(x: Any, by: Callable[[Any], Any]) -> Any:
    if isinstance(x, (list, tuple)):
        return type(x)(replaced(item, by) for item in x)
    return by(x)


def back(x: Any) -> Any:
    """Results as NumPy arrays; an array that was given comes back as itself."""
    if isinstance(x, DeviceView):
        return x.host
    return x.get() if hasattr(x, "__cuda_array_interface__") and hasattr(x, "get") else x


def shuttled(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        shipment = Shipment(arrays_in([*args, *kwargs.values()]))
        result = function(
            *replaced(args, shipment.out),
            **{k: replaced(v, shipment.out) for k, v in kwargs.items()},
        )
        shipment.home()
        return replaced(result, back)

    return call


class FusedOptimizer:
    """`_core.FusedOptimizer` whose arrays travel to the GPU and back with every step."""

    native = _core.FusedOptimizer

    def __init__(self) -> None:
        self._groups: list[tuple[Any, ...]] = []
        self.nonfinite_tensor: Any = None

    def add_group(self, rule: str, params: Any, states: Any, steps: Any, *rest: Any) -> int:
        group = (rule, list(params), [list(s) for s in states], steps, *rest)
        shipment = Shipment(arrays_in(list(group)))
        self.native().add_group(*replaced(list(group), shipment.out))
        self._groups.append(group)
        return len(self._groups) - 1

    def _call(self, name: str, grads: Any, *args: Any, **options: Any) -> Any:
        shipment = Shipment(arrays_in([list(map(list, self._groups)), grads]))
        native = self.native()
        for group in self._groups:
            native.add_group(*replaced(list(group), shipment.out))
        result = getattr(native, name)(*args, replaced(list(grads), shipment.out), **options)
        self.nonfinite_tensor = native.nonfinite_tensor
        shipment.home()
        return float(back(result)) if result is not None else None

    def step(self, hyper: Array, grads: Any, **options: Any) -> Any:
        return self._call("step", grads, hyper, **options)

    def grad_norm(self, grads: Any, **options: Any) -> Any:
        return self._call("grad_norm", grads, **options)


_originals: dict[str, Any] = {}


def install() -> None:
    """From now on `_core`'s functions and optimizers run on the GPU."""
    for name, function in vars(_core).copy().items():
        if isinstance(function, types.BuiltinFunctionType) and name not in AT_HOME:
            _originals[name] = function
            setattr(_core, name, shuttled(function))
    _originals["FusedOptimizer"] = FusedOptimizer.native
    setattr(_core, "FusedOptimizer", FusedOptimizer)  # noqa: B010  no assignment to a type


@contextmanager
def at_home() -> Iterator[None]:
    """Meanwhile they run on the CPU."""
    travelling = {name: getattr(_core, name) for name in _originals}
    for name, function in _originals.items():
        setattr(_core, name, function)
    try:
        yield
    finally:
        for name, function in travelling.items():
            setattr(_core, name, function)
