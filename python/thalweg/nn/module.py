"""`Module`: PyTorch's semantics, names, keys and shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ..backend import Array, ArrayLike, as_array, check_float, move
from ..recording import Changes, active
from .parameter import Parameter

M = TypeVar("M", bound="Module")


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict(strict=False)` did not find or did not use."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """A function with parameters, buffers and submodules.

    Assigning a `Parameter` or a `Module` to an attribute registers it. Buffers are NumPy arrays
    that belong to the state and have no gradient. A subclass calls `super().__init__()` first and
    defines `forward`.

    >>> from thalweg import nn
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    >>> {name: array.shape for name, array in model.state_dict().items()}
    {'0.weight': (3, 4), '0.bias': (3,)}
    """

    training: bool

    def __init__(self) -> None:
        self.__dict__.update(
            training=True, _parameters={}, _buffers={}, _modules={}, _numbered=False
        )

    # --- registration ----------------------------------------------------------------------------
    def __setattr__(self, name: str, value: Any) -> None:
        Changes.count += 1
        if isinstance(value, Parameter):
            self.register_parameter(name, value)
        elif isinstance(value, Module):
            self.add_module(name, value)
        elif name in self.__dict__.get("_parameters", ()):
            if value is not None:
                raise TypeError(f"{name} is a parameter, got {type(value).__name__}")
            self._parameters[name] = None
        elif name in self.__dict__.get("_modules", ()) and value is None:
            self._modules[name] = None
        elif name in self.__dict__.get("_buffers", ()):
            self._buffers[name] = None if value is None else as_array(value)
        else:
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        for registry in ("_parameters", "_buffers", "_modules"):
            found = self.__dict__.get(registry, {})
            if name in found:
                return found[name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        Changes.count += 1
        for registry in (self._parameters, self._buffers, self._modules):
            if name in registry:
                del registry[name]
                return
        object.__delattr__(self, name)

    def _forget(self, name: str) -> None:
        Changes.count += 1
        if "_modules" not in self.__dict__:
            raise RuntimeError(
                f"{type(self).__name__}: call super().__init__() before assigning {name!r}"
            )
        if not name or "." in name:
            raise ValueError(f"a name must be non-empty and without dots, got {name!r}")
        for registry in (self.__dict__, self._parameters, self._buffers, self._modules):
            registry.pop(name, None)

    def register_parameter(self, name: str, parameter: Parameter | None) -> None:
        """Add a parameter; None reserves the name."""
        self._forget(name)
        self._parameters[name] = parameter

    def register_buffer(self, name: str, array: ArrayLike | None) -> None:
        """Add an array that is saved with the state and gets no gradient."""
        self._forget(name)
        self._buffers[name] = None if array is None else as_array(array)

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a submodule."""
        self._forget(name)
        self._modules[name] = module
        self.__dict__["_numbered"] = False

    # --- calling ---------------------------------------------------------------------------------
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self._numbered:
            self.number_modules()
        if (recorder := active()) is not None:
            recorder.module(self)
        return self.forward(*args, **kwargs)

    def number_modules(self) -> None:
        """Give every module its position in this one, which random layers draw by.

        Done at the first call of the outermost module; whoever runs parts of a model on several
        ranks calls it on the whole model before cutting it.
        """
        for position, module in enumerate(self.modules()):
            module.__dict__.update(_numbered=True, module_id=position)

    # --- traversal -------------------------------------------------------------------------------
    def named_children(self) -> Iterator[tuple[str, Module]]:
        return ((name, child) for name, child in self._modules.items() if child is not None)

    def children(self) -> Iterator[Module]:
        return (child for _, child in self.named_children())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all below it, depth first, each once."""
        seen: set[int] = set()
        stack: list[tuple[str, Module]] = [(prefix, self)]
        while stack:
            path, module = stack.pop()
            if id(module) in seen:
                continue
            seen.add(id(module))
            yield path, module
            below = [(f"{path}.{n}" if path else n, m) for n, m in module.named_children()]
            stack.extend(reversed(below))

    def modules(self) -> Iterator[Module]:
        return (module for _, module in self.named_modules())

    def _named(self, registry: str, prefix: str) -> Iterator[tuple[str, Any, Module, str]]:
        for path, module in self.named_modules(prefix):
            for name, value in module.__dict__[registry].items():
                if value is not None:
                    yield (f"{path}.{name}" if path else name), value, module, name

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """Name and parameter; one that is used in several places appears once."""
        seen: set[int] = set()
        for name, parameter, _, _ in self._named("_parameters", prefix):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield name, parameter

    def parameters(self) -> Iterator[Parameter]:
        return (parameter for _, parameter in self.named_parameters())

    def named_buffers(self, prefix: str = "") -> Iterator[tuple[str, Array]]:
        return ((name, array) for name, array, _, _ in self._named("_buffers", prefix))

    def buffers(self) -> Iterator[Array]:
        return (array for _, array in self.named_buffers())

    def apply(self: M, function: Callable[[Module], object]) -> M:
        """Call `function` on every module below this one, then on this one."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    # --- modes -----------------------------------------------------------------------------------
    def train(self: M, mode: bool = True) -> M:
        """Training mode, or evaluation mode with `mode=False`, for all modules below."""
        Changes.count += 1
        for module in self.modules():
            module.__dict__["training"] = bool(mode)
        return self

    def eval(self: M) -> M:
        """Evaluation mode: running statistics, no dropout."""
        return self.train(False)

    def requires_grad_(self: M, requires_grad: bool = True) -> M:
        """Train the parameters, or freeze them."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients, or fill them with zeros."""
        for parameter in self.parameters():
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.zero_()

    def to(self: M, target: Any) -> M:
        """Move parameters and floating buffers to "cpu" or "cuda", or to float32 or float64.

        What moves leaves its gradient and the arena behind: build optimizers afterwards.
        """
        if target in ("cpu", "cuda"):
            return self._move(target)
        dtype = check_float(target, "Module.to: dtype")
        Changes.count += 1
        for parameter in self.parameters():
            if parameter.dtype != dtype:
                parameter.convert_(dtype)
        for _, array, module, name in self._named("_buffers", ""):
            if array.dtype.kind == "f":
                module._buffers[name] = array.astype(dtype, copy=False)
        return self

    def _move(self: M, device: str) -> M:
        Changes.count += 1
        moved = [(p, move("Module.to", p.data, device)) for p in self.parameters()]
        for parameter, data in moved:
            if data is not parameter.data:
                parameter.replace_(data)
        for _, array, module, name in self._named("_buffers", ""):
            if array.dtype.kind == "f":
                module._buffers[name] = move("Module.to", array, device)
        return self

    def double(self: M) -> M:
        return self.to(np.float64)

    def float(self: M) -> M:
        return self.to(np.float32)

    # --- state -----------------------------------------------------------------------------------
    def state_dict(self, prefix: str = "") -> dict[str, Array]:
        """Name -> array of every parameter and buffer, sharing memory with the model."""
        own: dict[str, Any] = {**self._parameters, **self._buffers}
        state = {
            prefix + name: value.data if isinstance(value, Parameter) else value
            for name, value in own.items()
            if value is not None
        }
        for name, child in self.named_children():
            state.update(child.state_dict(f"{prefix}{name}."))
        return state

    def load_state_dict(
        self, state: Mapping[str, ArrayLike], strict: bool = True
    ) -> IncompatibleKeys:
        """Copy values into parameters and buffers, in place.

        Args:
            state: name -> array or tensor of any library, of the same shape and dtype.
            strict: demand exactly this model's names.

        Raises:
            KeyError: names that are missing or unexpected.
            ValueError, TypeError: an array of another shape or dtype. Nothing was written.
        """
        own = self.state_dict()
        missing = [name for name in own if name not in state]
        unexpected = [name for name in state if name not in own]
        if strict and (missing or unexpected):
            raise KeyError(
                f"load_state_dict: missing {missing or 'none'}, unexpected {unexpected or 'none'}"
            )
        arrays = {name: as_array(state[name]) for name in own if name in state}
        for name, array in arrays.items():
            if array.shape != own[name].shape:
                raise ValueError(
                    f"load_state_dict: {name} must have shape {own[name].shape}, got {array.shape}"
                )
            if array.dtype != own[name].dtype:
                raise TypeError(
                    f"load_state_dict: {name} must be {own[name].dtype}, got {array.dtype}"
                )
        for name, array in arrays.items():
            np.copyto(own[name], array)
        return IncompatibleKeys(missing, unexpected)

    # --- description -----------------------------------------------------------------------------
    def extra_repr(self) -> str:
        """The arguments that `repr` shows."""
        return ""

    def __repr__(self) -> str:
        children = [
            f"  ({name}): " + repr(child).replace("\n", "\n  ")
            for name, child in self.named_children()
        ]
        inside = "\n" + "\n".join(children) + "\n" if children else self.extra_repr()
        return f"{type(self).__name__}({inside})"
