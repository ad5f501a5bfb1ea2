"""Modules made of modules."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .. import functional as F
from .chain import apply, chain
from .module import Module


class Sequential(Module):
    """The modules one after the other; `Sequential(a, b)` or `Sequential({"first": a, …})`.

    Indexing gives a module, slicing a Sequential that shares its modules. ReLU is applied by the
    module before it where this can take it along (see `nn.chain`), with the same bits.
    """

    fuses = ("residual", "activation")

    def __init__(self, *modules: Any) -> None:
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            named = dict(modules[0])
        else:
            named = {str(i): module for i, module in enumerate(modules)}
        for name, module in named.items():
            if not isinstance(module, Module):
                raise TypeError(f"Sequential: {name} must be a Module, got {type(module).__name__}")
            self.add_module(name, module)

    def forward(self, x: Any, residual: Any = None, activation: str | None = None) -> Any:
        return chain(self.children(), x, residual, activation)

    def append(self, module: Module) -> Sequential:
        """Add one more module at the end."""
        self.add_module(str(len(self)), module)
        return self

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    def __getitem__(self, key: int | slice) -> Any:
        names = list(self._modules)
        if isinstance(key, slice):
            return Sequential({name: self._modules[name] for name in names[key]})
        return self._modules[names[key]]


class ModuleList(Module):
    """Modules in a list that `parameters()` sees."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        for module in modules:
            self.append(module)

    def append(self, module: Module) -> ModuleList:
        """Add one more module at the end."""
        self.add_module(str(len(self)), module)
        return self

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    def __getitem__(self, key: int) -> Any:
        return list(self._modules.values())[key]


class Residual(Module):
    """body(x) + shortcut(x); without a shortcut, body(x) + x (He 2016)."""

    fuses = ("activation",)

    def __init__(self, body: Module, shortcut: Module | None = None) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut

    def forward(self, x: Any, activation: str | None = None) -> Any:
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return apply(self.body, x, shortcut, activation)


class Concat(Module):
    """The outputs of all branches on the same x, joined along `axis` (Szegedy 2015)."""

    def __init__(self, *branches: Module, axis: int = 1) -> None:
        super().__init__()
        if not branches:
            raise ValueError("Concat: expected at least one branch, got none")
        self.axis = axis
        for i, branch in enumerate(branches):
            self.add_module(str(i), branch)

    def forward(self, x: Any) -> Any:
        return F.concatenate([branch(x) for branch in self.children()], self.axis)


class Flatten(Module):
    """All axes from `start_dim` on as one."""

    def __init__(self, start_dim: int = 1) -> None:
        super().__init__()
        self.start_dim = start_dim

    def forward(self, x: Any) -> Any:
        kept, rest = x.shape[: self.start_dim], x.shape[self.start_dim :]
        return F.reshape(x, (*kept, math.prod(rest)))  # -1 would fail where nothing is left to cut
