"""`capture`: a training step recorded once and replayed in one compiled call.

The first call of a step runs it as it stands and records its launches; the next call like it does
so too. If both recordings agree, the second one is replayed on the first one's state and has to
give the second step's bits; from then on calls of this kind replay. `csrc/plan/plan.h` says what
can be recorded. A plan holds for

- the shapes and dtypes of the arguments, and the values of those that are no arrays,
- threads, instruction set and precision of products,
- modules as they are: mode, options, parameters, buffers, submodules,
- which gradients existed at its beginning,
- the optimizers' rules and options; their hyperparameters are read before each replay,
- numbers and objects that the step's code takes from around it (`surroundings.py`).

Whatever else changes needs another recording, which is made by itself.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np

from . import _core
from .autograd import is_grad_enabled
from .guards import NUMBERS
from .recorded_step import RecordedStep
from .recording import CaptureError, active
from .surroundings import Surroundings
from .tensor import Tensor

PLANS = 8  # of one step, for as many kinds of calls; the oldest is forgotten


class Capture:
    """What `capture` returns. Its attributes tell what it does.

    Attributes:
        replays: how many calls were replayed.
        refusal: why the step runs define-by-run; None while that is not so.
    """

    def __init__(self, function: Callable[..., Any], on_refusal: Literal["raise", "warn"]) -> None:
        if on_refusal not in ("raise", "warn"):
            raise ValueError(f"capture: on_refusal must be 'raise' or 'warn', got {on_refusal!r}")
        functools.update_wrapper(self, function)
        self._function = function
        self._around = Surroundings(function)
        self._strict = on_refusal == "raise"
        self._plans: list[RecordedStep] = []
        self._last: RecordedStep | None = None
        self.replays = 0
        self.refusal: str | None = None

    def __call__(self, *inputs: Any) -> Any:
        if active() is not None:
            raise CaptureError("capture: a step is being recorded already; captures do not nest")
        if self.refusal is not None:
            return self._function(*inputs)
        machine = _core.get_num_threads(), _core.isa(), _core.get_matmul_precision()
        around = self._around.found()
        key = Key(tuple(map(_kind, inputs)), machine, is_grad_enabled(), around)
        for plan in self._plans:
            if plan.matches(key):
                self.replays += 1
                return plan.replay(inputs)
        return self._record(key, inputs)

    def _record(self, key: Key, inputs: tuple[Any, ...]) -> Any:
        last = self._last
        if last is not None and last.key != key == last.key._replace(around=key.around):
            problem = _changed(last.key.around, key.around)
            if problem is not None:
                self._refuse(problem)
                return self._function(*inputs)
        if last is not None and not last.matches(key):
            last = None
        before = last.save() if last is not None else None
        recording = RecordedStep(key, inputs, self._strict)
        result = recording.run(self._function, last)
        problem = recording.problem
        if problem is None and last is not None and before is not None:
            problem = last.plan.difference(recording.plan) or recording.verify(last, before)
        if problem is not None:
            self._refuse(problem)
        elif last is not None:
            self._plans = [*self._plans[1 - PLANS :], recording]
            self._last = None
        else:
            self._last = recording
        return result

    def _refuse(self, problem: str) -> None:
        self._plans, self._last = [], None
        message = f"capture: {problem}"
        if self._strict:
            raise CaptureError(message)
        self.refusal = problem
        warnings.warn(f"{message}. Every call runs define-by-run.", stacklevel=4)


def capture(
    function: Callable[..., Any], *, on_refusal: Literal["raise", "warn"] = "raise"
) -> Capture:
    """A step that records itself in its first calls and is then replayed, with the same bits.

    Args:
        function: `function(*inputs)` -> a Tensor, a tuple of Tensors, or None. It does forward,
            backward and `optimizer.step()`. Inputs are arrays and Tensors without gradients, which
            are copied; other values select a recording of their own.
        on_refusal: "raise" a CaptureError, or "warn" once and run `function` from then on.

    Returns:
        A function of the same arguments. Results are copies; `.grad`s are in memory that the next
        call writes again.

    A replay is one call without the interpreter lock. Parameters, states, running statistics,
    dropout's counters and hyperparameters are those of the moment; whatever else the function does
    in Python is done in the recorded calls only. Two such things go unnoticed, so keep them out of
    a step: NumPy writing into a parameter what it held already, and NumPy reading parameters for a
    side effect (a metric).

    Raises:
        CaptureError: (by the call) the step reads values, computes with NumPy, uses numbers or
            arrays that change from step to step without being arguments, or has effects that a
            replay does not repeat. The message names the operation. A step that was read from is
            left where it was; all others were completed.

    >>> import thalweg as tw
    >>> model = tw.nn.Linear(3, 1)
    >>> opt = tw.optim.SGD(model.parameters(), lr=0.1)
    >>> def step(x, y):
    ...     opt.zero_grad()
    ...     loss = tw.functional.mse_loss(model(x), y)
    ...     loss.backward()
    ...     opt.step()
    ...     return loss
    >>> fast = tw.capture(step)
    >>> x, y = tw.ones(4, 3), tw.zeros(4, 1)
    >>> losses = [fast(x, y).item() for _ in range(20)]
    >>> fast.replays, losses[-1] < losses[0]
    (18, True)
    """
    return Capture(function, on_refusal)


# --- keys ----------------------------------------------------------------------------------------
class Key(NamedTuple):
    """What a plan is for, besides what it has recorded. around: see `Surroundings`."""

    inputs: tuple[Any, ...]
    machine: tuple[Any, ...]
    grad: bool
    around: dict[str, Any]


def _kind(x: Any) -> Any:
    if isinstance(x, Tensor):
        if not isinstance(x.data, np.ndarray):
            raise CaptureError(
                "capture: an argument is on a GPU; steps are captured on the CPU only"
            )
        if x.requires_grad:
            raise CaptureError("capture: an argument requires grad; pass x.detach()")
        return Tensor, x.data.shape, x.data.dtype, x.data.strides
    if isinstance(x, np.ndarray):
        return np.ndarray, x.shape, x.dtype, x.strides
    if x is None or isinstance(x, NUMBERS):
        return type(x), x
    raise CaptureError(
        f"capture: an argument is a {type(x).__name__}, expected a Tensor, an array or a number"
    )


def _changed(before: dict[str, Any], after: dict[str, Any]) -> str | None:
    """Why a step whose surroundings differ cannot be captured; None where only objects do."""
    names = [n for n in before.keys() & after.keys() if before[n] != after[n]]
    name = next((n for n in names if isinstance(before[n], NUMBERS)), None)
    if name is None:
        return None
    return (
        f"the step uses or counts {name!r} in Python, which was {before[name]!r} in one call "
        f"and {after[name]!r} in the next; a replay would keep it. Pass it as an argument"
    )
