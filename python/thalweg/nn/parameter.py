"""`Parameter`: what an optimizer updates."""

from __future__ import annotations

import numpy.typing as npt

from ..backend import ArrayLike
from ..tensor import Tensor


class Parameter(Tensor):
    """A tensor that a module's `parameters()` finds. It shares memory with `data`."""

    __slots__ = ()

    def __init__(
        self, data: ArrayLike, requires_grad: bool = True, dtype: npt.DTypeLike | None = None
    ) -> None:
        super().__init__(data, requires_grad, dtype)
