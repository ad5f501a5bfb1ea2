"""What has to be as it was for a recorded step to be replayed."""

from __future__ import annotations

from itertools import repeat
from operator import attrgetter, is_
from typing import Any

import numpy as np

from .backend import Array
from .recording import Changes
from .tensor import Tensor

REGISTRIES = ("_parameters", "_buffers", "_modules")
NUMBERS = (bool, int, float, str, np.generic)
ANYTHING = object()  # a leaf whose gradient is overwritten before it is read

_data, _grad = attrgetter("data"), attrgetter("_grad")
_requires_grad = attrgetter("requires_grad")
_around = attrgetter("max_norm", "clip_value", "ema_decay", "nonfinite")


class Guards:
    """Modules, the memory of parameters, the gradients at the beginning, and optimizers.

    They are noted while a step is recorded; `hold` looks at them before each replay, so what it
    looks at is put into lists once.
    """

    def __init__(self) -> None:
        self.modules: dict[int, tuple[Any, Any]] = {}
        self.leaves: dict[int, tuple[Tensor, Any]] = {}
        self.optimizers: dict[int, tuple[Any, Any, Any]] = {}
        self._volatile: list[tuple[Any, Any]] = []  # modules with options that change in place
        self._memory: dict[int, tuple[Tensor, Array]] = {}  # of parameters and leaves
        self._changes = Changes.count  # up to which the modules are known to be what they were

    # --- noting ----------------------------------------------------------------------------------
    def add_module(self, module: Any) -> bool:
        """Note a module; whether it is new."""
        if id(module) in self.modules:
            return False
        self.modules[id(module)] = (module, _options(module))
        if any(isinstance(v, (list, tuple)) for v in vars(module).values()):
            self._volatile.append(self.modules[id(module)])
        for parameter in module._parameters.values():
            if parameter is not None:
                self._memory[id(parameter)] = parameter, parameter.data
        return True

    def add_leaf(self, tensor: Any, *, reads: bool) -> Array | None:
        """Note a leaf; the gradient that it has and that is read."""
        if id(tensor) in self.leaves:
            return None
        grad = ANYTHING if not reads else None if tensor._grad is None else tensor._grad.data
        self.leaves[id(tensor)] = tensor, grad
        self._memory.setdefault(id(tensor), (tensor, tensor.data))
        return grad if isinstance(grad, np.ndarray) else None

    def add_optimizer(self, optimizer: Any) -> None:
        self.optimizers[id(optimizer)] = optimizer, optimizer._native, _stages(optimizer)

    def problem(self) -> str | None:
        """What the step itself has changed that it must not."""
        if not all(tensor.data is data for tensor, data in self._memory.values()):
            return "the step gives a parameter other memory; do that outside"
        for module, options in self.modules.values():
            if _options(module) != options:
                return f"the step changes attributes of {type(module).__name__}; do that outside"
        return None

    # --- looking ---------------------------------------------------------------------------------
    def close(self) -> None:
        """Nothing more will be noted."""
        leaves = self.leaves.values()
        self._tensors = [tensor for tensor, _ in self._memory.values()]
        self._arrays = [array for _, array in self._memory.values()]
        self._trained = list(map(_requires_grad, self._tensors))
        self._without_grad = [tensor for tensor, grad in leaves if grad is None]
        self._with_grad = [(t, grad) for t, grad in leaves if isinstance(grad, np.ndarray)]

    def hold(self) -> bool:
        """Whether everything is as it was; optimizers' hyperparameters are taken over."""
        return (
            all(map(is_, map(_data, self._tensors), self._arrays))
            and list(map(_requires_grad, self._tensors)) == self._trained
            and all(map(is_, map(_grad, self._without_grad), repeat(None)))
            and all(t._grad is not None and t._grad.data is g for t, g in self._with_grad)
            and self._modules_hold()
            and all(_is_bound(*each) for each in self.optimizers.values())
        )

    def _modules_hold(self) -> bool:
        now = Changes.count
        some = self._volatile if now == self._changes else self.modules.values()
        if not all(_options(module) == options for module, options in some):
            return False
        self._changes = now
        return True


def hyperparameters(optimizer: Any) -> Array:
    """The rows that its compiled steps read, of this moment."""
    optimizer._refresh()
    block: Array = optimizer._block
    return block


def _stages(optimizer: Any) -> tuple[Any, ...]:
    return _around(optimizer), [len(group["params"]) for group in optimizer.param_groups]


def _is_bound(optimizer: Any, native: Any, stages: tuple[Any, ...]) -> bool:
    """Whether the optimizer still works by the same compiled object, in the same way."""
    optimizer._refresh()
    return optimizer._native is native and _stages(optimizer) == stages


def _options(module: Any) -> tuple[Any, ...]:
    """What a module's forward depends on besides its arguments, as comparable values."""
    values = {n: _comparable(v) for n, v in vars(module).items() if n not in REGISTRIES}
    members = [{n: id(v) for n, v in vars(module)[r].items()} for r in REGISTRIES]
    return values, members


def _comparable(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_comparable(each) for each in value]
    return value if value is None or isinstance(value, NUMBERS) else id(value)
