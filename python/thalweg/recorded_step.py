"""One recorded call of a step: its plan, and what the plan holds for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _core
from .backend import Array
from .guards import Guards, hyperparameters
from .recording import CaptureError, RecordedArray, Recorder, activate
from .tensor import Tensor

if TYPE_CHECKING:
    from .capture import Key

KERNEL_DTYPES = ("float32", "float64", "float16", "bfloat16", "int32", "int64", "uint8", "bool")


class RecordedStep(Recorder):
    """One recorded call: its plan, and what has to be as it was for the plan to hold."""

    def __init__(self, key: Key, inputs: tuple[Any, ...], strict: bool) -> None:
        self.key = key
        self.plan = _core.Plan(RecordedArray)
        self.problem: str | None = None
        self._strict = strict
        self._guards = Guards()
        self._hosts: list[tuple[int, Callable[[], object]]] = []  # before which launch
        self._expected: dict[int, Array] = {}  # hyperparameters, by optimizer
        self._used: dict[int, Array] = {}
        self._ends: list[tuple[Tensor, Tensor | None]] = []
        self._declared: dict[int, Array] = {}
        self._results: Any = None
        self._inputs: list[tuple[int, Array]] = []  # positions of arrays, and the plan's copies
        self._laid_out: set[int] = set()  # those whose copies have the caller's strides
        self._bound: list[int] = []  # positions of those that a replay reads where they are
        self._copied: list[tuple[int, Array]] = []  # those that it copies
        self._arguments = [self._take(i, x) for i, x in enumerate(inputs)]

    def _take(self, position: int, x: Any) -> Any:
        """A copy of an argument in memory of the plan."""
        if not isinstance(x, (Tensor, np.ndarray)):
            return x
        array = x.data if isinstance(x, Tensor) else x
        copy = array.copy(order="K").view(RecordedArray)
        self._inputs.append((position, copy))
        if copy.strides == array.strides:
            self._laid_out.add(position)
        if _is_seen(copy):
            self.plan.input(copy)
        return x.with_history(copy) if isinstance(x, Tensor) else copy

    def run(self, function: Callable[..., Any], last: RecordedStep | None) -> Any:
        """Call the step and record it."""
        self._expected = {} if last is None else last._hyperparameters()
        self.plan.start()
        activate(self)
        try:
            returned = function(*self._arguments)
        finally:
            activate(None)
            self.plan.stop()
        self._finish(returned)
        return self._copies()

    def _finish(self, returned: Any) -> None:
        self._ends = [(leaf, leaf._grad) for leaf, _ in self._guards.leaves.values()]
        self._results, self._arguments = returned, []
        for each in returned if isinstance(returned, tuple) else (returned,):
            if each is not None and not isinstance(each, Tensor):
                self._note(f"the step returned a {type(each).__name__}, expected Tensors or None")
        self._expect_hyperparameters()
        problem = self._guards.problem() or self.plan.problem()
        if problem is not None:
            self._note(problem)
        self._guards.close()

    def _hyperparameters(self) -> dict[int, Array]:
        optimizers = self._guards.optimizers
        return {key: hyperparameters(o).copy() for key, (o, _, _) in optimizers.items()}

    def _expect_hyperparameters(self) -> None:
        """Only what is called in replays too may have changed them."""
        for key, now in self._hyperparameters().items():
            if not np.array_equal(self._expected.setdefault(key, now), now):
                self._note(
                    "the step changes hyperparameters in optimizer.param_groups; do that outside"
                )

    def _note(self, problem: str) -> None:
        self.problem = self.problem or problem

    def _tensors(self) -> list[Tensor]:
        """The results that are tensors."""
        returned = self._results if isinstance(self._results, tuple) else (self._results,)
        return [x for x in returned if isinstance(x, Tensor)]

    def _copies(self) -> Any:
        """The step's results in memory of their own."""
        returned = self._results
        return tuple(map(_copy, returned)) if isinstance(returned, tuple) else _copy(returned)

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
        if self._guards.add_module(module):
            parameters = [p.data for p in module._parameters.values() if p is not None]
            for array in (*parameters, *module._buffers.values()):
                if array is not None:
                    self.state(array)

    def leaf(self, tensor: Any, *, reads: bool) -> None:
        grad = self._guards.add_leaf(tensor, reads=reads)
        if grad is not None:
            self.state(grad)

    def optimizer(self, optimizer: Any) -> None:
        self._guards.add_optimizer(optimizer)
        self._expect_hyperparameters()
        used = self._used.setdefault(id(optimizer), optimizer._block.copy())
        if not np.array_equal(used, optimizer._block):
            self._note("the step uses an optimizer twice with other hyperparameters")

    def host(self, call: Callable[[], object]) -> None:
        self._expect_hyperparameters()
        call()
        self._expected = self._hyperparameters()  # of the others nothing is known any more
        self._hosts.append((len(self.plan), call))

    # --- replaying -------------------------------------------------------------------------------
    def matches(self, key: Key) -> bool:
        """Whether a call of this key, now, is one that the recording holds for."""
        return self.key == key and self._guards.hold()

    def replay(self, inputs: tuple[Any, ...]) -> Any:
        """Run the plan; `matches` has just been true."""
        for position, copy in self._copied:
            x = inputs[position]
            np.copyto(copy, x.data if isinstance(x, Tensor) else x)
        bound = [inputs[position] for position in self._bound]
        arguments, begin = [x.data if isinstance(x, Tensor) else x for x in bound], 0
        for end, call in self._hosts:
            self.plan.run(arguments, begin, end)
            call()
            self._hyperparameters()
            begin = end
        self.plan.run(arguments, begin)
        for leaf, grad in self._ends:
            leaf._grad = grad
        for optimizer, native, _ in self._guards.optimizers.values():
            optimizer._conclude(native.last_norm)
        return self._copies()

    def _settle(self) -> list[Array]:
        """Let go of memory that only the recording needed; returns the arguments of a replay."""
        kept = [grad.data for _, grad in self._ends if grad is not None]
        kept += [x.data for x in self._tensors()]
        arguments, bound = [], []
        for position, copy in self._inputs:
            plain = copy.view(np.ndarray)
            is_bound = _is_seen(copy) and position in self._laid_out
            is_bound = is_bound and not any(np.may_share_memory(plain, x) for x in kept)
            if is_bound:
                self._bound.append(position)
                arguments.append(plain.copy(order="K"))
            else:
                self._copied.append((position, plain))
            if _is_seen(copy):
                bound.append(is_bound)
        self.plan.settle(bound)
        return arguments

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
        arguments, optimizers = self._settle(), self._guards.optimizers
        now = self._hyperparameters()
        last._restore(before)
        for key, used in self._used.items():
            optimizers[key][0]._block[...] = used
        self.plan.run(arguments)
        for key, block in now.items():
            optimizers[key][0]._block[...] = block
        same = results == self._bits() and _same(last.save(), after)
        same = same and all(grad.tobytes() == wanted.tobytes() for grad, wanted in grads)
        last._restore(after)
        for grad, contents in grads:
            np.copyto(grad.view(np.ndarray), contents)
        if not self.plan.leave():
            return "a launch has kept the address of an array that was moved (an error in thalweg)"
        self._inputs = []
        if same:
            return None
        return (
            "a replay of the step does not give its bits: the step changes parameters or buffers "
            "in ways that are not recorded; use thalweg's operations, or do it outside the step"
        )

    def _bits(self) -> list[bytes]:
        return [x.data.tobytes() for x in self._tensors()]


def _copy(x: Any) -> Any:
    return x.with_history(np.array(x.data)) if isinstance(x, Tensor) else x


def _is_seen(array: Array) -> bool:
    """Whether launches can read it."""
    return array.size > 0 and array.dtype.name in KERNEL_DTYPES


def _same(a: tuple[bytes, list[Array]], b: tuple[bytes, list[Array]]) -> bool:
    pairs = zip(a[1], b[1], strict=True)
    return a[0] == b[0] and all(x.tobytes() == y.tobytes() for x, y in pairs)
