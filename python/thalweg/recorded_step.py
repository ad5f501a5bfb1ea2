"""One recorded call of a step: its plan, and what the plan holds for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import _core
from .backend import Array
from .recording import CaptureError, Changes, RecordedArray, Recorder, activate
from .tensor import Tensor

KERNEL_DTYPES = ("float32", "float64", "float16", "bfloat16", "int32", "int64", "uint8", "bool")
REGISTRIES = ("_parameters", "_buffers", "_modules")
NUMBERS = (bool, int, float, str, np.generic)
ANYTHING = object()  # a leaf whose gradient is overwritten before it is read


class RecordedStep(Recorder):
    """One recorded call: its plan, and what has to be as it was for the plan to hold."""

    def __init__(self, key: dict[str, Any], inputs: tuple[Any, ...], strict: bool) -> None:
        self.key = key
        self.plan = _core.Plan(RecordedArray)
        self.problem: str | None = None
        self._strict = strict
        self._modules: dict[int, tuple[Any, Any]] = {}
        self._changes = Changes.count  # up to which the modules are known to be what they were
        self._volatile: list[tuple[Any, Any]] = []
        self._parameters: list[tuple[Tensor, Array]] = []
        self._leaves: dict[int, tuple[Tensor, Array, Any]] = {}
        self._ends: list[tuple[Tensor, Tensor | None]] = []
        self._optimizers: dict[int, tuple[Any, Any, Any]] = {}
        self._declared: dict[int, Array] = {}
        self._results: Any = None
        self._buffers: list[Array | None] = []
        self._arguments = [self._take(x) for x in inputs]

    def _take(self, x: Any) -> Any:
        """A copy of an argument in memory of the plan."""
        if not isinstance(x, (Tensor, np.ndarray)):
            self._buffers.append(None)
            return x
        array = x.data if isinstance(x, Tensor) else x
        buffer = array.copy(order="K").view(RecordedArray)
        self._buffers.append(buffer)
        if buffer.dtype.name in KERNEL_DTYPES:
            self.plan.input(buffer)
        return x.with_history(buffer) if isinstance(x, Tensor) else buffer

    def run(self, function: Callable[..., Any], last: RecordedStep | None) -> Any:
        """Call the step and record it."""
        entry = {id(o): o._hyper().copy() for o, _, _ in last._optimizers.values()} if last else {}
        self.plan.start()
        activate(self)
        try:
            returned = function(*self._arguments)
        finally:
            activate(None)
            self.plan.stop()
        self._finish(returned, entry)
        return self._copies()

    def _finish(self, returned: Any, entry: dict[int, Array]) -> None:
        self._ends = [(leaf, leaf._grad) for leaf, _, _ in self._leaves.values()]
        self._results = returned
        for each in returned if isinstance(returned, tuple) else (returned,):
            if each is not None and not isinstance(each, Tensor):
                self._note(f"the step returned a {type(each).__name__}, expected Tensors or None")
        for optimizer, _, _ in self._optimizers.values():
            used = optimizer._block.copy()
            if not (
                np.array_equal(used, optimizer._hyper())
                and np.array_equal(entry.get(id(optimizer), used), used)
            ):
                self._note(
                    "the step changes hyperparameters in optimizer.param_groups; do that outside"
                )
        for leaf, data, _ in self._leaves.values():
            if leaf.data is not data:
                self._note("the step gives a parameter other memory; do that outside")
        for module, options in self._modules.values():
            if _options(module) != options:
                self._note(
                    f"the step changes attributes of {type(module).__name__}; do that outside"
                )
        if self.problem is None:
            self.problem = self.plan.problem()

    def _note(self, problem: str) -> None:
        self.problem = self.problem or problem

    def _copies(self) -> Any:
        """The step's results in memory of their own."""

        def copy(x: Any) -> Any:
            return x.with_history(np.array(x.data)) if isinstance(x, Tensor) else x

        returned = self._results
        return tuple(map(copy, returned)) if isinstance(returned, tuple) else copy(returned)

    # --- what the package reports while it runs --------------------------------------------------
    def refuse(self, reason: str) -> None:
        self._note(reason)
        if self._strict:
            raise CaptureError(f"capture: {reason}")

    def constant(self, array: Array) -> None:
        self.plan.constant(array)

    def state(self, array: Array) -> None:
        self._declared.setdefault(id(array), array)
        self.plan.state(array)

    def module(self, module: Any) -> None:
        if id(module) in self._modules:
            return
        self._modules[id(module)] = (module, _options(module))
        if _has_lists(module):
            self._volatile.append(self._modules[id(module)])
        for parameter in module._parameters.values():
            if parameter is not None:
                self._parameters.append((parameter, parameter.data))
                self.state(parameter.data)
        for buffer in module._buffers.values():
            if buffer is not None:
                self.state(buffer)

    def leaf(self, tensor: Any, *, reads: bool) -> None:
        if id(tensor) not in self._leaves:
            grad = ANYTHING if not reads else None if tensor._grad is None else tensor._grad.data
            self._leaves[id(tensor)] = (tensor, tensor.data, grad)
            if isinstance(grad, np.ndarray):
                self.state(grad)

    def optimizer(self, optimizer: Any) -> None:
        self._optimizers[id(optimizer)] = (optimizer, optimizer._native, _stages(optimizer))

    # --- replaying -------------------------------------------------------------------------------
    def matches(self, key: dict[str, Any]) -> bool:
        """Whether a call of this key, now, is one that the recording holds for."""
        return (
            self.key == key
            and all(
                leaf.data is data and (grad is ANYTHING or _data(leaf._grad) is grad)
                for leaf, data, grad in self._leaves.values()
            )
            and all(parameter.data is data for parameter, data in self._parameters)
            and self._modules_are_as_they_were()
            and all(_bound(*each) for each in self._optimizers.values())
        )

    def _modules_are_as_they_were(self) -> bool:
        now = Changes.count
        some = self._volatile if now == self._changes else self._modules.values()
        if not all(_options(module) == options for module, options in some):
            return False
        self._changes = now
        return True

    def replay(self, inputs: tuple[Any, ...]) -> Any:
        for buffer, x in zip(self._buffers, inputs, strict=True):
            if buffer is not None:
                np.copyto(buffer.view(np.ndarray), x.data if isinstance(x, Tensor) else x)
        for optimizer, _, _ in self._optimizers.values():
            optimizer._hyper()
        self.plan.run()
        for leaf, grad in self._ends:
            leaf._grad = grad
        for optimizer, native, _ in self._optimizers.values():
            optimizer._conclude(native.last_norm)
        return self._copies()

    def save(self) -> tuple[bytes, list[Array]]:
        """The state that the step depends on and changes, as far as this recording knows it."""
        return self.plan.save(), [array.copy() for array in self._declared.values()]

    def _restore(self, saved: tuple[bytes, list[Array]]) -> None:
        for array, contents in zip(self._declared.values(), saved[1], strict=True):
            if array.flags.writeable:
                np.copyto(array.view(np.ndarray), contents)
        self.plan.restore(saved[0])

    def verify(self, last: RecordedStep, before: tuple[bytes, list[Array]]) -> str | None:
        """Replay the recorded call on the state `before` it; None if that gives its bits."""
        after, results = last.save(), self._bits()
        grads = [(grad.data, grad.data.copy()) for _, grad in self._ends if grad is not None]
        last._restore(before)
        self.plan.run()
        same = results == self._bits() and _same(last.save(), after)
        same = same and all(grad.tobytes() == wanted.tobytes() for grad, wanted in grads)
        last._restore(after)
        for grad, contents in grads:
            np.copyto(grad.view(np.ndarray), contents)
        if same:
            return None
        return (
            "a replay of the step does not give its bits: the step changes parameters or buffers "
            "in ways that are not recorded; use thalweg's operations, or do it outside the step"
        )

    def _bits(self) -> list[bytes]:
        copies = self._copies()
        tensors = copies if isinstance(copies, tuple) else (copies,)
        return [x.data.tobytes() for x in tensors if isinstance(x, Tensor)]


def _data(grad: Tensor | None) -> Array | None:
    return None if grad is None else grad.data


def _stages(optimizer: Any) -> tuple[Any, ...]:
    return (
        optimizer.max_norm,
        optimizer.clip_value,
        optimizer.ema_decay,
        optimizer.nonfinite,
        [len(group["params"]) for group in optimizer.param_groups],
    )


def _bound(optimizer: Any, native: Any, stages: tuple[Any, ...]) -> bool:
    """Whether the optimizer still works by the same compiled object, in the same way."""
    optimizer._refresh()
    return optimizer._native is native and _stages(optimizer) == stages


def _same(a: tuple[bytes, list[Array]], b: tuple[bytes, list[Array]]) -> bool:
    pairs = zip(a[1], b[1], strict=True)
    return a[0] == b[0] and all(x.tobytes() == y.tobytes() for x, y in pairs)


def _options(module: Any) -> tuple[Any, ...]:
    """What a module's forward depends on besides its arguments, as comparable values."""
    values = {n: _comparable(v) for n, v in vars(module).items() if n not in REGISTRIES}
    members = [{n: id(v) for n, v in vars(module)[r].items()} for r in REGISTRIES]
    return values, members


def _has_lists(module: Any) -> bool:
    return any(isinstance(v, (list, tuple)) for v in vars(module).values())


def _comparable(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_comparable(each) for each in value]
    return value if value is None or isinstance(value, NUMBERS) else id(value)
