"""One parameter group as the kernels see it: memory, state, step counts, averages."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter, is_, methodcaller
from typing import Any

import numpy as np

from .. import _core
from ..cuda import is_device_array, to_device, to_host
from ..tensor import Tensor
from .half import from_dlpack, half_dtype, is_half
from .memory import Array, allocate, allocate_like

INITIAL_STEP = (0.0, 1.0, 1.0, 1.0)  # step, beta1_power, beta2_power, mu_product
_AVERAGE_LANE = 4  # after the states
QUANT_BLOCK = 256  # codes that share a scale, see csrc/rules/quantize.h
ABSMAX = "_absmax"  # a state's name and this: its scales

_data = attrgetter("data")
_grad = attrgetter("grad")
_pointer = methodcaller("data_ptr")


class Slots:
    """The arrays of one group.

    owners: what the user gave. memory: what the kernels write to (the array, or a DLPack exporter
    of it). views: NumPy views of the same memory. states: `{name: [array per parameter]}`.
    steps: (parameters, fields of `_core.STEP_FIELDS`). averages: EMA weights or None.
    masters: float32 copies of the parameters of 16 bits, None for others. A master whose rounded
    value is not the parameter takes the parameter's value in the step, so zeros will do at first.
    copies: the parameters rounded to `copy_dtype`, or None. With `quantized`, states are uint8
    codes, and `absmax` has the float32 scales of their blocks.
    """

    def __init__(
        self,
        owner: str,
        owners: Sequence[Any],
        first: int,
        *,
        averaged: bool,
        quantized: bool,
        copy_dtype: str | None,
    ) -> None:
        self.quantized = quantized
        self.absmax: dict[str, list[Array]] = {}
        self.owners = list(owners)
        self.names = [f"{owner}: parameter {first + i}" for i in range(len(owners))]
        self.locate()
        self.states: dict[str, list[Array]] = {}
        steps = np.array([INITIAL_STEP] * len(owners), dtype=np.float64).reshape(-1, 4)
        self.on_device = any(map(is_device_array, self.views))
        self.steps = to_device(steps) if self.on_device else steps
        masters = iter(allocate_like([view for view in self.views if is_half(view)]))
        self.masters = [next(masters) if is_half(view) else None for view in self.views]
        self.averages = allocate_like(self.computed(), _AVERAGE_LANE) if averaged else None
        self.copies: list[Array] | None = None
        if copy_dtype is not None:
            dtype = half_dtype(copy_dtype)
            self.copies = allocate([(view.shape, dtype) for view in self.views])
            for copy, view in zip(self.copies, self.views, strict=True):
                copy[...] = view
        self.fresh = True

    def locate(self) -> None:
        """Look up where the parameters' memory is now."""
        self.memory = [memory_of(owner) for owner in self.owners]
        self.views = [view_of(*pair) for pair in zip(self.names, self.memory, strict=True)]
        self._tensors = [o for o in self.owners if isinstance(o, Tensor)]
        self._tensor_data = list(map(_data, self._tensors))
        self._foreign = [o for o in self.owners if hasattr(o, "data_ptr")]
        self._pointers = list(map(_pointer, self._foreign))

    def computed(self) -> list[Array]:
        """What the rule sees as the parameters: masters where there are some."""
        pairs = zip(self.views, self.masters, strict=True)
        return [view if master is None else master for view, master in pairs]

    def holds(self, params: Sequence[Any]) -> bool:
        """Whether `params` are the group's parameters, in its order."""
        return len(params) == len(self.owners) and all(map(is_, params, self.owners))

    def moved(self) -> bool:
        """Whether somebody gave a parameter other memory since `locate` (an arena, `p.data =`)."""
        stays = all(map(is_, map(_data, self._tensors), self._tensor_data))
        return not stays or list(map(_pointer, self._foreign)) != self._pointers

    def follow(self) -> None:
        """Use the parameters' new memory with the old state."""
        memory = map(memory_of, self.owners)
        for name, old, new in zip(self.names, self.views, memory, strict=True):
            view = view_of(name, new)
            if (view.shape, view.dtype) != (old.shape, old.dtype):
                raise ValueError(
                    f"{name} was {old.shape} {old.dtype} and became {view.shape} {view.dtype}; "
                    "make a new optimizer for it"
                )
        self.locate()

    def gradients(self) -> list[Any]:
        """The parameters' `.grad`s as arrays, None where there is none."""
        grads = list(map(_grad, self.owners))
        if not self._tensors:
            return grads
        return [g.data if isinstance(g, Tensor) else g for g in grads]

    def ensure_states(self, names: Sequence[str]) -> None:
        """Allocate the named states, zero, where they do not exist."""
        for lane, name in enumerate(names, start=1):
            if name in self.states:
                continue
            if self.quantized:
                self.states[name] = allocate([(v.shape, np.dtype(np.uint8)) for v in self.views])
                blocks = [-(-view.size // QUANT_BLOCK) for view in self.views]
                self.absmax[name] = allocate([((n,), np.dtype(np.float32)) for n in blocks])
            else:
                self.states[name] = allocate_like(self.computed(), lane)

    def bind(
        self, native: _core.FusedOptimizer, rule: str, scale: float | tuple[float, ...]
    ) -> None:
        """Add the group to the compiled optimizer, with the states that `rule` has."""
        names = _core.optimizer_rules()[rule]
        self.ensure_states(names)
        native.add_group(
            rule,
            self.memory,
            [self.states[name] for name in names],
            self.steps,
            self.averages,
            scale if isinstance(scale, tuple) else (scale,) * len(self.owners),
            self.masters,
            [self.absmax[name] for name in names] if self.quantized else None,
            self.copies,
        )

    def initialise(self, value: Callable[[str, int], float]) -> None:
        """Before the first step: states become `value(name, i)`, averages the parameters."""
        steps = to_host(self.steps).copy()
        for i in map(int, np.flatnonzero(steps[:, 0] == 0)):
            steps[i] = INITIAL_STEP
            for name, arrays in self.states.items():
                first = value(name, i)
                if self.quantized:  # 255 is 1 in the map of a state that has no sign
                    self.absmax[name][i][...] = first
                    first = 255 if first else 0
                arrays[i][...] = first
            if self.averages is not None:
                self.averages[i][...] = self.views[i]
        self.steps[...] = to_device(steps) if self.on_device else steps

    def write(self, values: Iterable[Array]) -> None:
        """Set the parameters, whoever owns their memory."""
        for memory, view, value in zip(self.memory, self.views, values, strict=True):
            if is_half(view):
                view[...] = value
            else:
                _core.copy(value, out=memory)


def memory_of(owner: Any) -> Any:
    """What the kernels can write to. PyTorch exports no tensor that requires a gradient, but its
    detached alias."""
    if isinstance(owner, Tensor):
        return owner.data
    return owner.detach() if hasattr(owner, "detach") else owner


def view_of(name: str, memory: Any) -> Array:
    """A NumPy view of a parameter's memory; TypeError unless it is a float of 16, 32 or 64 bits."""
    if is_device_array(memory):
        memory = importlib.import_module("cupy").asarray(memory)
    elif not isinstance(memory, np.ndarray):
        if not hasattr(memory, "__dlpack__"):
            raise TypeError(f"{name} must be an array or a tensor, got {type(memory).__name__}")
        try:
            memory = from_dlpack(memory)
        except (BufferError, TypeError, RuntimeError) as error:
            raise TypeError(f"{name} cannot be shared with NumPy: {error}") from error
    half = is_half(memory) and memory.dtype.isnative
    if half and is_device_array(memory):
        raise TypeError(f"{name} is {memory.dtype}; on a GPU it must be float32 or float64")
    if not half and memory.dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise TypeError(
            f"{name} must be float32 or float64, or bfloat16 or float16, got {memory.dtype}"
        )
    view: Array = memory
    return view
