"""What a step's function uses besides its arguments: numbers and objects around it.

A function's code names the globals, closure cells and attributes that it loads. These are followed
through the functions, methods and objects of the user's own, so that a number that changes in any
of them is noticed before a replay. Modules and optimizers have guards of their own (`guards.py`),
and libraries are not followed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import cache, partial
from inspect import getattr_static, unwrap
from operator import is_
from types import CellType, CodeType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any, NamedTuple

import numpy as np

from .guards import NUMBERS
from .nn.module import Module
from .optim import Optimizer
from .variable import Variable

LIBRARIES = ("thalweg", "numpy", "torch", "jax", "scipy", "sklearn", "matplotlib", "mpi4py")
OPAQUE = (*NUMBERS, Variable, np.ndarray, Optimizer, type(None))
MOST = 1000  # places to look at; those of a step are tens
SHORT = 64  # elements of a container that is looked into
FILLING = frozenset(["add", "append", "extend", "insert", "pop", "setdefault", "update"])


class Same:
    """An object that equals itself alone."""

    __slots__ = ("object",)
    __hash__ = object.__hash__

    def __init__(self, each: Any) -> None:
        self.object = each

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and other.object is self.object


class Names(NamedTuple):
    """What a function's code, inner functions included, loads and stores."""

    free: frozenset[str]  # globals
    attributes: frozenset[str]
    stored: frozenset[str]

    @property
    def fills(self) -> bool:
        """Whether the code puts elements into containers."""
        return not FILLING.isdisjoint(self.attributes) or "[]" in self.stored


@cache
def _names(code: CodeType) -> Names:
    import dis

    kinds: dict[str, set[str]] = {"GLOBAL": set(), "ATTR": set(), "STORE": set()}
    for each in dis.get_instructions(code):
        if each.opname.startswith(("STORE_ATTR", "STORE_GLOBAL", "STORE_DEREF")):
            kinds["STORE"].add(each.argval)
        elif each.opname.startswith("STORE_S"):  # of an element or, from Python 3.12 on, a slice
            kinds["STORE"].add("[]")
        elif each.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            kinds["GLOBAL"].add(each.argval)
        elif each.opname in ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR"):
            kinds["ATTR"].add(each.argval)
    inner = [_names(const) for const in code.co_consts if isinstance(const, CodeType)]
    sets = zip(kinds.values(), zip(*inner, strict=True) if inner else ((),) * 3, strict=True)
    return Names(*(frozenset(own).union(*others) for own, others in sets))


class Surroundings:
    """The places around `function`, and what was there when they were looked at last."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = unwrap(function)
        self._values: list[Any] = []
        self._found: dict[str, Any] = {}
        self._places: list[tuple[Callable[[Any], Any], Any]] = []
        self._lists: list[list[Any] | deque[Any]] = []
        self._follow()

    def found(self) -> dict[str, Any]:
        """Numbers, and other objects as `Same`, by name; the same dictionary for as long as nothing
        is replaced."""
        values = self._read()
        if len(values) != len(self._values) or not all(map(is_, values, self._values)):
            self._follow()
        return self._found

    def _read(self) -> list[Any]:
        values = [get(key) for get, key in self._places]
        for each in self._lists:
            values += each
        return values

    def _follow(self) -> None:
        walk = _Walk()
        walk.visit("the step", self._function, _NOTHING)
        self._places = [(get, key) for get, key, _, _ in walk.places]
        self._lists = [each for _, each, _ in walk.lists]
        self._values = self._read()
        names = [(name, stored) for _, _, name, stored in walk.places]
        for name, each, stored in walk.lists:
            names += [(f"{name}[{i}]", stored) for i in range(len(each))]
        self._found = {}
        for (name, stored), value in zip(names, self._values, strict=True):
            while name in self._found:  # in another namespace
                name += "'"
            if isinstance(value, NUMBERS):
                self._found[name] = value
            elif not stored or isinstance(value, (Module, Optimizer)):
                # Else the step puts it there itself, and another one every time.
                self._found[name] = Same(value)


_NOTHING = Names(frozenset(), frozenset(), frozenset())


class _Walk:
    """One walk through what a function can reach by the names in its code."""

    def __init__(self) -> None:
        self.places: list[tuple[Callable[[Any], Any], Any, str, bool]] = []
        self.lists: list[tuple[str, list[Any] | deque[Any], bool]] = []
        self._seen: set[tuple[int, int]] = set()

    def visit(self, name: str, each: Any, names: Names) -> None:
        """Look into an object that code with these `names` can reach."""
        if isinstance(each, OPAQUE) or (id(each), id(names)) in self._seen:
            return
        if len(self.places) > MOST or (_is_library(each) and not isinstance(each, Module)):
            return
        self._seen.add((id(each), id(names)))
        if isinstance(each, MethodType):
            self._function(each.__func__, each.__self__)
        elif isinstance(each, FunctionType):
            self._function(each, None)
        elif isinstance(each, partial):
            for part in (each.func, *each.args, *each.keywords.values()):
                self.visit(name, part, names)
        elif isinstance(each, Module):
            for module in each.modules():
                if not _is_library(module):
                    self._function(type(module).forward, module)
        elif isinstance(each, (list, tuple, deque)):
            self._elements(name, each, names)
        elif isinstance(each, dict):
            for key in list(each)[:SHORT]:
                self._place(f"{name}[{key!r}]", each.get, key, names, stored=names.fills)
        else:
            self._attributes(name, each, names)

    def _function(self, function: Any, owner: Any) -> None:
        if not isinstance(function, FunctionType) or _is_library(function):
            return
        names, inside = _names(function.__code__), function.__globals__
        for name in sorted(names.free & inside.keys()):
            self._place(name, inside.get, name, names, stored=name in names.stored)
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        for name, cell in cells:
            self._place(name, _contents, cell, names, stored=name in names.stored)
        for default in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            self.visit("default", default, names)
        if owner is not None and not isinstance(owner, Module):
            self.visit(type(owner).__name__, owner, names)
        elif owner is not None:  # its attributes are guarded
            for name in sorted(names.attributes & vars(owner).keys()):
                self.visit(name, vars(owner)[name], names)

    def _place(
        self, name: str, get: Callable[[Any], Any], key: Any, names: Names, *, stored: bool
    ) -> None:
        self.places.append((get, key, name, stored))
        self.visit(name, get(key), names)

    def _elements(self, name: str, elements: Any, names: Names) -> None:
        if len(elements) <= SHORT:
            if not isinstance(elements, tuple):
                self.lists.append((name, elements, names.fills))
            for each in elements:
                self.visit(name, each, names)

    def _attributes(self, name: str, each: Any, names: Names) -> None:
        inside = getattr(each, "__dict__", {})
        for attribute in (*sorted(names.attributes), "__call__"):
            if attribute in inside:
                stored = attribute in names.stored
                self._place(f"{name}.{attribute}", inside.get, attribute, names, stored=stored)
                continue
            method = getattr_static(type(each), attribute, None)
            if isinstance(method, MemberDescriptorType):  # of `__slots__`
                stored = attribute in names.stored
                get = partial(_member, attribute)
                self._place(f"{name}.{attribute}", get, each, names, stored=stored)
                continue
            self._function(method.fget if isinstance(method, property) else method, each)


def _is_library(each: Any) -> bool:
    if isinstance(each, ModuleType):
        owner = each.__name__
    else:
        named = each if hasattr(each, "__module__") else type(each)
        owner = getattr(named, "__module__", None) or ""
    return owner.partition(".")[0] in LIBRARIES


def _member(attribute: str, owner: Any) -> Any:
    return getattr(owner, attribute, None)  # None where it was not assigned yet


def _contents(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None
