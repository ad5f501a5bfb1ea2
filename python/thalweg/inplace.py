"""Methods that write into a tensor's memory: names end in an underscore, as in PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from . import _core
from . import functional as F
from .autograd import is_grad_enabled
from .backend import Array
from .functional.shape import ending, is_basic
from .random import default_generator
from .recording import active, refuse
from .variable import SCALARS, Variable, array_of, data_of, operands

if TYPE_CHECKING:
    from typing_extensions import Self

    from .random import Generator


def fill(array: Array, value: float) -> None:
    """Set every element; a launch where a step is recorded."""
    if active() is None:
        array.fill(value)
    else:
        _core.fill(array, value)


class InPlace(Variable):
    """In-place methods. None of them is recorded, so a tensor that requires grad refuses them
    outside `no_grad()`: the values that a pending `backward` needs would be gone.
    """

    __slots__ = ()

    def _writable(self, name: str) -> None:
        if self.requires_grad and is_grad_enabled():
            kind = "a leaf" if self._node is None else "a result"
            raise RuntimeError(
                f"{name}: {kind} that requires grad cannot be changed in place; "
                "use no_grad(), or the form without an underscore"
            )

    def _update(self, name: str, kernel: Any, other: Any) -> Self:
        self._writable(name)
        kernel(*operands(self, other), out=self.data)
        return self

    def add_(self, other: Any, *, alpha: float = 1) -> Self:
        """self += alpha * other."""
        if alpha != 1:
            other = other * alpha if isinstance(other, SCALARS) else F.mul(data_of(other), alpha)
        return self._update("add_", _core.add, other)

    def sub_(self, other: Any) -> Self:
        """self -= other."""
        return self._update("sub_", _core.sub, other)

    def mul_(self, other: Any) -> Self:
        """self *= other."""
        return self._update("mul_", _core.mul, other)

    def div_(self, other: Any) -> Self:
        """self /= other."""
        return self._update("div_", _core.div, other)

    def clamp_(self, min: float | None = None, max: float | None = None) -> Self:
        """Limit every element to [min, max]."""
        self._writable("clamp_")
        for kernel, bound in ((_core.maximum, min), (_core.minimum, max)):
            if bound is not None:
                kernel(*operands(self, bound), out=self.data)
        return self

    def copy_(self, other: Any) -> Self:
        """Take over the values of `other`, broadcast to this shape."""
        self._writable("copy_")
        _core.copy(operands(self, other)[1], out=self.data)
        return self

    def fill_(self, value: float) -> Self:
        """Set every element to `value`."""
        self._writable("fill_")
        fill(self.data, value)
        return self

    def zero_(self) -> Self:
        """Set every element to 0."""
        return self.fill_(0)

    def normal_(
        self, mean: float = 0, std: float = 1, *, generator: Generator | None = None
    ) -> Self:
        """Draw every element from the normal distribution."""
        self._writable("normal_")
        if std < 0:
            raise ValueError(f"normal_: std must not be negative, got {std}")
        draw = (generator or default_generator()).numpy
        self.data[...] = mean + std * draw.standard_normal(self.data.shape, self.data.dtype)
        return self

    def uniform_(
        self, low: float = 0, high: float = 1, *, generator: Generator | None = None
    ) -> Self:
        """Draw every element uniformly from [low, high)."""
        self._writable("uniform_")
        if not low <= high:
            raise ValueError(f"uniform_: low must not exceed high, got {low} and {high}")
        draw = (generator or default_generator()).numpy
        self.data[...] = low + (high - low) * draw.random(self.data.shape, self.data.dtype)
        return self

    def __setitem__(self, key: Any, value: Any) -> None:
        self._writable("assignment to elements")
        value = value.data if isinstance(value, Variable) else value
        if active() is None:
            self.data[key] = value
            return
        if not is_basic(key):
            refuse("assignment to elements at an array of positions", "do it outside the step")
        part = self.data[ending(key)]
        value = operands(part, value)[1]
        _core.copy(np.broadcast_to(array_of(value), part.shape), out=part)

    def _replaceable(self) -> bool:
        """Whether `y += x` shall bind y to a new recorded result instead of writing into y."""
        return self._node is not None and is_grad_enabled()

    def __iadd__(self, other: Any) -> Self:
        return F.add(self, other) if self._replaceable() else self.add_(other)

    def __isub__(self, other: Any) -> Self:
        return F.sub(self, other) if self._replaceable() else self.sub_(other)

    def __imul__(self, other: Any) -> Self:
        return F.mul(self, other) if self._replaceable() else self.mul_(other)

    def __itruediv__(self, other: Any) -> Self:
        return F.div(self, other) if self._replaceable() else self.div_(other)
