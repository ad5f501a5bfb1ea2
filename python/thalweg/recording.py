"""What the package has to know while a step is recorded for replay (see `capture`).

A replay runs launches and no Python. So while a step is recorded,

- arrays that launches fill are `RecordedArray`s, on which NumPy refuses to compute: what it would
  compute is not part of the plan;
- reading a value (`.item()`, `bool(tensor)`, `.numpy()`) is refused: it would freeze a branch;
- modules, leaf tensors, optimizers and counters report themselves, so that a replay can tell
  whether they are still what they were.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class CaptureError(RuntimeError):
    """A step that cannot be captured; the message names the operation and the reason."""


class Recorder:
    """What a recording listens to. `recorded_step.RecordedStep` is the only one."""

    def refuse(self, reason: str) -> None:
        raise NotImplementedError

    def constant(self, array: Array) -> None:
        raise NotImplementedError

    def state(self, array: Array) -> None:
        raise NotImplementedError

    def module(self, module: Any) -> None:
        raise NotImplementedError

    def leaf(self, tensor: Any, *, reads: bool) -> None:
        raise NotImplementedError

    def optimizer(self, optimizer: Any) -> None:
        raise NotImplementedError

    def host(self, call: Callable[[], object]) -> None:
        raise NotImplementedError


class Changes:
    """How often any module was given an attribute, a mode or other memory: where the count stands
    still, all modules are what they were."""

    count = 0


class _Local(threading.local):
    recorder: Recorder | None = None


_local = _Local()


def active() -> Recorder | None:
    """The recorder of this thread; None while nothing is recorded."""
    return _local.recorder


def activate(recorder: Recorder | None) -> None:
    _local.recorder = recorder


def on_host(call: Callable[[], object]) -> None:
    """Call what has to be called in every step, replays included, and works on no arrays."""
    if _local.recorder is None:
        call()
    else:
        _local.recorder.host(call)


def constant(array: Array) -> Array:
    """`array`, made from numbers alone: its values are part of the plan, and compared."""
    if _local.recorder is not None:
        _local.recorder.constant(array)
    return array


def refuse(what: str, remedy: str) -> None:
    """Refuse to record `what`, if anything is recorded."""
    if _local.recorder is not None:
        _local.recorder.refuse(f"{what}; {remedy}")


def refuse_reading(name: str) -> None:
    """Refuse to record a call that hands values to Python."""
    refuse(
        f"{name} reads a value while the step is recorded, and a replay would not read it again",
        "return the tensor and read it outside",
    )


# --- arrays on which NumPy does not compute -------------------------------------------------------
def _operation() -> str:
    """The operation of `functional` that is running, or else the step."""
    frame, name = sys._getframe(2), "the step"
    while frame is not None and frame.f_globals.get("__name__", "").startswith("thalweg"):
        if frame.f_globals["__name__"].startswith("thalweg.functional"):
            name = frame.f_code.co_name
        frame = frame.f_back  # type: ignore[assignment]
    return name


def _refuse_numpy(function: str) -> None:
    if _local.recorder is not None:
        refuse(
            f"{_operation()} computes with NumPy ({function}), which a replay would not repeat",
            "use thalweg's operations, or do it outside the step",
        )


_VIEWS = (np.broadcast_to, np.swapaxes, np.transpose, np.reshape, np.expand_dims, np.squeeze)
_HARMLESS = (*_VIEWS, np.may_share_memory, np.shares_memory, np.shape, np.ndim, np.size)


def _plain(x: Any) -> Any:
    return x.view(np.ndarray) if isinstance(x, RecordedArray) else x


class RecordedArray(np.ndarray[Any, Any]):
    """An array whose contents a replay changes. Views of it are of this class too.

    Where nothing is recorded it behaves as any array, and results are plain ones.
    """

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        _refuse_numpy(f"numpy.{ufunc.__name__}")
        if "out" in options:
            options["out"] = tuple(map(_plain, options["out"]))
        return getattr(ufunc, method)(*map(_plain, inputs), **options)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if function not in _HARMLESS:
            _refuse_numpy(f"numpy.{function.__name__}")
        result = super().__array_function__(function, types, args, kwargs)
        if function in _VIEWS and _local.recorder is not None:
            return result.view(RecordedArray)
        return result

    def __getitem__(self, key: Any) -> Any:
        parts = key if isinstance(key, tuple) else (key,)
        basic = (int, np.integer, slice, type(None), type(Ellipsis))
        if not all(isinstance(p, basic) and not isinstance(p, bool) for p in parts):
            _refuse_numpy("indexing with an array")
        result = super().__getitem__(key)
        if not isinstance(result, np.ndarray):
            _refuse_numpy("reading an element")
        return result

    def __setitem__(self, key: Any, value: Any) -> None:
        _refuse_numpy("assignment to elements")
        super().__setitem__(key, value)

    def astype(self, dtype: Any, *args: Any, **options: Any) -> Any:
        if options.get("copy") is False and self.dtype == dtype:
            return self
        _refuse_numpy("astype")
        return _plain(self).astype(dtype, *args, **options)


def _guarded(name: str) -> Any:
    method = getattr(np.ndarray, name)

    def guarded(self: RecordedArray, *args: Any, **options: Any) -> Any:
        _refuse_numpy(f"ndarray.{name}")
        return method(self.view(np.ndarray), *args, **options)

    guarded.__name__ = name
    return guarded


_LOOKING = """
all any argmax argmin argpartition argsort byteswap choose clip compress conj conjugate copy
cumprod cumsum diagonal dot dump dumps fill flatten getfield item max mean min nonzero partition
prod put ravel repeat resize round searchsorted setfield sort std sum take tobytes tofile tolist
trace var __array__ __bool__ __int__ __float__ __index__ __complex__ __contains__ __iter__
__copy__ __deepcopy__ __reduce__ __reduce_ex__ __repr__ __str__
"""
for _name in str.split(_LOOKING):
    setattr(RecordedArray, _name, _guarded(_name))
