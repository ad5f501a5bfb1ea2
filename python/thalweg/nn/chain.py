"""Modules one after the other, where one takes along what follows it.

A class whose `forward` takes `residual` or `activation` says so in `fuses`. ReLU behind such a
module, or a sum around it, is then computed where its result is written, with the same bits. A
class that overrides `forward` takes part only if it has `fuses` of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .. import functional as F
from ..recording import active
from .activation import ReLU
from .module import Module
from .pool import MaxPool2d


def apply(module: Module, x: Any, residual: Any = None, activation: str | None = None) -> Any:
    """activation(module(x) + residual), by the module itself as far as it can.

    Args:
        residual: what is added, or None.
        activation: None or "relu".
    """
    fuses = _fuses(module)
    if residual is not None and "residual" not in fuses:
        return finish(module(x), residual, activation)
    options: dict[str, Any] = {} if residual is None else {"residual": residual}
    if activation is None or "activation" not in fuses:
        return finish(module(x, **options), None, activation)
    return module(x, **options, activation=activation)


def chain(
    modules: Iterable[Module], x: Any, residual: Any = None, activation: str | None = None
) -> Any:
    """activation(the last module(... the first(x)) + residual)."""
    steps = _steps(modules)
    for module, name in steps[:-1]:
        x = apply(module, x, None, name)
    for module, name in steps[-1:]:
        if name is None:
            return apply(module, x, residual, activation)
        x = apply(module, x, None, name)
    return finish(x, residual, activation)


def finish(y: Any, residual: Any, activation: str | None) -> Any:
    """activation(y + residual), as operations of their own."""
    y = y if residual is None else F.add(y, residual)
    return y if activation is None else F.relu(y)


def _steps(modules: Iterable[Module]) -> list[tuple[Module, str | None]]:
    """Modules with the activation that each takes along.

    The largest of some numbers and ReLU commute, gradients included, so that ReLU before a maximum
    is left to it: it sees fewer elements.
    """
    steps: list[tuple[Module, str | None]] = []
    for module in modules:
        before, name = steps[-1] if steps else (None, None)
        if _is_relu(module) and before and name is None and "activation" in _fuses(before):
            _note(module)
            steps[-1] = before, "relu"
        elif _is_max_pool(module) and before and (name is not None or _is_relu(before)):
            if name is None:
                _note(before)
            steps[-1:] = [(before, None)] if name else []
            steps.append((module, "relu"))
        else:
            steps.append((module, None))
    return steps


def _is_relu(module: Module) -> bool:
    return type(module) is ReLU and "forward" not in vars(module)


def _is_max_pool(module: Module) -> bool:
    return type(module).forward is MaxPool2d.forward and "forward" not in vars(module)


def _note(module: Module) -> None:
    """A recording depends on a module that is not called, too."""
    if (recorder := active()) is not None:
        recorder.module(module)


def _fuses(module: Module) -> tuple[str, ...]:
    if "forward" in vars(module):
        return ()
    owner = next(base for base in type(module).__mro__ if "forward" in vars(base))
    found: tuple[str, ...] = vars(owner).get("fuses", ())
    return found
