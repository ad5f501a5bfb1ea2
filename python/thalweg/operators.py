"""Operators and methods of a tensor; their meaning is in `functional`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from . import functional as F
from .backend import Array, aligned_empty, check_float, move
from .functional.masks import compare
from .recording import refuse_reading
from .variable import Variable, operands

if TYPE_CHECKING:
    from typing_extensions import Self

Axis = int | Sequence[int] | None


class Operators(Variable):
    """What can be written with a tensor. Comparisons and positions are NumPy arrays."""

    __slots__ = ()
    __hash__ = object.__hash__

    def _constant(self, other: Any) -> Self:
        return self.with_history(np.asarray(operands(self, other)[1]))

    # --- arithmetic ------------------------------------------------------------------------------
    def __add__(self, other: Any) -> Self:
        return F.add(self, other)

    def __sub__(self, other: Any) -> Self:
        return F.sub(self, other)

    def __mul__(self, other: Any) -> Self:
        return F.mul(self, other)

    def __truediv__(self, other: Any) -> Self:
        return F.div(self, other)

    def __pow__(self, other: Any) -> Self:
        return F.pow(self, other)

    def __matmul__(self, other: Any) -> Self:
        return F.matmul(self, other)

    def __radd__(self, other: Any) -> Self:
        return F.add(self, other)

    def __rmul__(self, other: Any) -> Self:
        return F.mul(self, other)

    def __rsub__(self, other: Any) -> Self:
        return F.sub(self._constant(other), self)

    def __rtruediv__(self, other: Any) -> Self:
        return F.div(self._constant(other), self)

    def __rpow__(self, other: Any) -> Self:
        return F.pow(self._constant(other), self)

    def __rmatmul__(self, other: Any) -> Self:
        return F.matmul(self._constant(other), self)

    def __neg__(self) -> Self:
        return F.neg(self)

    def __abs__(self) -> Self:
        return F.abs(self)

    def __getitem__(self, key: Any) -> Self:
        return F.index(self, key)

    def __lt__(self, other: Any) -> Array:
        return compare(self, "<", other)

    def __le__(self, other: Any) -> Array:
        return compare(self, "<=", other)

    def __gt__(self, other: Any) -> Array:
        return compare(self, ">", other)

    def __ge__(self, other: Any) -> Array:
        return compare(self, ">=", other)

    def __eq__(self, other: object) -> Array:  # type: ignore[override]
        return compare(self, "==", other)

    def __ne__(self, other: object) -> Array:  # type: ignore[override]
        return compare(self, "!=", other)

    # --- functions of each element ---------------------------------------------------------------
    def abs(self) -> Self:
        return F.abs(self)

    def sign(self) -> Self:
        return F.sign(self)

    def square(self) -> Self:
        return F.square(self)

    def sqrt(self) -> Self:
        return F.sqrt(self)

    def reciprocal(self) -> Self:
        return F.reciprocal(self)

    def exp(self) -> Self:
        return F.exp(self)

    def log(self) -> Self:
        return F.log(self)

    def erf(self) -> Self:
        return F.erf(self)

    def sigmoid(self) -> Self:
        return F.sigmoid(self)

    def tanh(self) -> Self:
        return F.tanh(self)

    def relu(self) -> Self:
        return F.relu(self)

    def add(self, other: Any) -> Self:
        return F.add(self, other)

    def sub(self, other: Any) -> Self:
        return F.sub(self, other)

    def mul(self, other: Any) -> Self:
        return F.mul(self, other)

    def div(self, other: Any) -> Self:
        return F.div(self, other)

    def pow(self, other: Any) -> Self:
        return F.pow(self, other)

    def maximum(self, other: Any) -> Self:
        return F.maximum(self, other)

    def minimum(self, other: Any) -> Self:
        return F.minimum(self, other)

    def matmul(self, other: Any) -> Self:
        return F.matmul(self, other)

    def clamp(self, min: float | None = None, max: float | None = None) -> Self:
        return F.clip(self, min, max)

    # --- reductions ------------------------------------------------------------------------------
    def sum(self, axis: Axis = None, keepdims: bool = False) -> Self:
        return F.sum(self, axis, keepdims)

    def mean(self, axis: Axis = None, keepdims: bool = False) -> Self:
        return F.mean(self, axis, keepdims)

    def max(self, axis: Axis = None, keepdims: bool = False) -> Self:
        return F.max(self, axis, keepdims)

    def min(self, axis: Axis = None, keepdims: bool = False) -> Self:
        return F.min(self, axis, keepdims)

    def norm(self, axis: Axis = None, keepdims: bool = False) -> Self:
        return F.norm(self, axis, keepdims)

    def var(self, axis: Axis = None, keepdims: bool = False, correction: int = 1) -> Self:
        return F.var(self, axis, keepdims, correction)

    def std(self, axis: Axis = None, keepdims: bool = False, correction: int = 1) -> Self:
        return F.std(self, axis, keepdims, correction)

    def softmax(self, axis: int = -1) -> Self:
        return F.softmax(self, axis)

    def log_softmax(self, axis: int = -1) -> Self:
        return F.log_softmax(self, axis)

    def argmax(self, axis: int | None = None) -> Any:
        refuse_reading("argmax")
        return self.data.argmax(axis)

    def argmin(self, axis: int | None = None) -> Any:
        refuse_reading("argmin")
        return self.data.argmin(axis)

    # --- shape -----------------------------------------------------------------------------------
    @property
    def T(self) -> Self:
        """The axes in reverse order, a view."""
        return F.permute(self, range(self.data.ndim)[::-1])

    def reshape(self, *shape: Any) -> Self:
        return F.reshape(self, _sequence(shape))

    def view(self, *shape: Any) -> Self:
        """`reshape` that never copies: ValueError where the layout would need it."""
        y = F.reshape(self, _sequence(shape))
        if not np.may_share_memory(y.data, self.data) and self.data.size:
            raise ValueError(f"view: shape {y.data.shape} needs a copy of this layout, use reshape")
        return y

    def flatten(self, start: int = 0) -> Self:
        """All axes from `start` on as one."""
        shape = self.data.shape
        return F.reshape(self, (*shape[:start], math.prod(shape[start:])))

    def transpose(self, axis0: int = -2, axis1: int = -1) -> Self:
        return F.transpose(self, axis0, axis1)

    def t(self) -> Self:
        return self.T

    def permute(self, *axes: Any) -> Self:
        return F.permute(self, _sequence(axes))

    def expand(self, *shape: Any) -> Self:
        """Repeat along new and length-1 axes without a copy; -1 keeps an axis."""
        wanted = _sequence(shape)
        if len(wanted) < self.data.ndim:
            raise ValueError(
                f"expand: expected at least {self.data.ndim} axes for a tensor of shape "
                f"{self.data.shape}, got {wanted}"
            )
        old = (1,) * (len(wanted) - self.data.ndim) + self.data.shape
        return F.broadcast_to(self, [o if n == -1 else n for n, o in zip(wanted, old, strict=True)])

    def unsqueeze(self, axis: int) -> Self:
        return F.reshape(self, np.expand_dims(self.data, axis).shape)

    def squeeze(self, axis: int | None = None) -> Self:
        return F.reshape(self, np.squeeze(self.data, axis).shape)

    # --- copies ----------------------------------------------------------------------------------
    def clone(self) -> Self:
        """A copy in its own memory; gradients flow through."""
        return F.copy(self)

    def to(self, target: Any) -> Self:
        """This tensor in another dtype, or on another device ("cpu", "cuda"); itself if it is so.

        Gradients do not flow between devices: move inputs and modules, not results.
        """
        if target in ("cpu", "cuda"):
            data = move("Tensor.to", self.data, target)
            if data is self.data:
                return self
            if self.requires_grad:
                raise RuntimeError("Tensor.to: gradients do not flow between devices; detach first")
            return self.with_history(data)
        return F.cast(self, target)

    def double(self) -> Self:
        return F.cast(self, np.float64)

    def new_empty(self, *shape: Any, dtype: npt.DTypeLike | None = None) -> Self:
        """Uninitialised, in this dtype unless another is given."""
        dtype = check_float(dtype or self.data.dtype, "new_empty: dtype")
        return self.with_history(aligned_empty(_sequence(shape), dtype))

    def new_full(
        self, shape: int | Sequence[int], value: Any, dtype: npt.DTypeLike | None = None
    ) -> Self:
        out = self.new_empty(shape, dtype=dtype)
        out.data.fill(value)
        return out

    def new_zeros(self, *shape: Any, dtype: npt.DTypeLike | None = None) -> Self:
        return self.new_full(_sequence(shape), 0, dtype)

    def new_ones(self, *shape: Any, dtype: npt.DTypeLike | None = None) -> Self:
        return self.new_full(_sequence(shape), 1, dtype)


def _sequence(items: tuple[Any, ...]) -> tuple[int, ...]:
    """f(2, 3) and f((2, 3)) mean the same."""
    one = len(items) == 1 and not isinstance(items[0], (int, np.integer))
    return tuple(items[0]) if one else items
