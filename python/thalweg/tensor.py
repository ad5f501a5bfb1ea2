"""`Tensor`: an array, its gradient, and the operation that it came from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _core
from .autograd import Edge, Node, is_grad_enabled, propagate
from .backend import Array, ArrayLike, DType, check_float
from .functional.differentiate import seed_gradient
from .inplace import InPlace, fill
from .operators import Operators
from .recording import active, refuse_reading
from .variable import Variable, array_of


class Tensor(Operators, InPlace, Variable):
    """A float32 or float64 array that remembers how it was computed.

    Whatever is not a real number (class indices, masks, positions) stays a NumPy array; comparisons
    and `argmax` return NumPy arrays. A leaf is a tensor that no recorded operation produced.

    Args:
        data: float array, not copied; Python numbers become float32.
        requires_grad: record operations on it and collect its gradient.
        dtype: convert to this dtype.

    Attributes:
        data: the NumPy array itself. Writing to it is not recorded, and not noticed by a pending
            `backward` that needs the old values. (Where PyTorch code says `t.data.norm()`, say
            `t.detach().norm()`.)
        grad: Tensor of the same shape, or None before the first `backward`. In an `Arena` it is a
            view of the gradient buffer, and None zeroes that buffer.

    >>> x = Tensor([1.0, 2.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    tensor([2., 4.])
    """

    __slots__ = ()
    __array_ufunc__ = None  # array + tensor asks the tensor

    def __init__(
        self, data: ArrayLike, requires_grad: bool = False, dtype: npt.DTypeLike | None = None
    ) -> None:
        array = array_of(data)
        if dtype is None and isinstance(data, (list, tuple, int, float)):
            dtype = np.float32
        if dtype is not None:
            if array.dtype.kind in "cSUMmO":  # astype would drop the imaginary part, or parse text
                raise TypeError(f"Tensor: data must be real numbers, got {array.dtype}")
            array = array.astype(check_float(dtype, "Tensor: dtype"), copy=False)
        check_float(array.dtype, "Tensor: data")
        self.data: Array = array
        self.requires_grad = requires_grad
        self._grad: Tensor | None = None
        self._node: Node | None = None
        self._buffer: Array | None = None
        self._hooks: tuple[Callable[[Tensor], object], ...] = ()

    def with_history(self, data: Array, node: Node | None = None) -> Any:
        """The tensor on `data` that came from `node`; nothing is checked."""
        result = Tensor.__new__(Tensor)
        result.data = data
        result.requires_grad = node is not None
        result._grad = None
        result._node = node
        result._buffer = None
        result._hooks = ()
        return result

    # --- shape and value -------------------------------------------------------------------------
    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def dtype(self) -> DType:
        return self.data.dtype

    @property
    def ndim(self) -> int:
        return self.data.ndim

    @property
    def device(self) -> str:
        return "cpu"

    def size(self, dim: int | None = None) -> Any:
        """The shape, or its entry `dim`."""
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        return self.data.ndim

    def numel(self) -> int:
        return self.data.size

    def item(self) -> float:
        """The only element as a Python float."""
        if self.data.size != 1:
            raise ValueError(f"item: expected one element, tensor has shape {self.shape}")
        refuse_reading("item")
        return float(self.data.item())

    def tolist(self) -> Any:
        refuse_reading("tolist")
        return self.data.tolist()

    def numpy(self) -> Array:
        """The array, without a copy; a tensor that requires grad has to be detached first."""
        if self.requires_grad:
            raise RuntimeError("numpy: the tensor requires grad, use .detach().numpy() or .data")
        refuse_reading("numpy")
        return self.data

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        refuse_reading("numpy.asarray(tensor)")
        if copy:
            return np.array(self.data, dtype)
        return np.asarray(self.data, dtype)

    def __dlpack__(self, **options: Any) -> Any:
        return self.data.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.data.__dlpack_device__()

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        return bool(self.item())

    def __float__(self) -> float:
        return self.item()

    def __int__(self) -> int:
        return int(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else str(self)

    def __repr__(self) -> str:
        refuse_reading("repr")
        text = np.array2string(self.data, prefix="tensor(", separator=", ")
        dtype = "" if self.dtype == np.float32 else f", dtype={self.dtype}"
        grad = ", requires_grad=True" if self.requires_grad else ""
        return f"tensor({text}{dtype}{grad})"

    # --- history and gradients -------------------------------------------------------------------
    @property
    def is_leaf(self) -> bool:
        return self._node is None

    @property
    def edge(self) -> Edge | None:
        """Where a gradient for this tensor flows; None if it needs none."""
        if not self.requires_grad:
            return None
        return self if self._node is None else self._node

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Ask for gradients, or stop asking; only a leaf can stop."""
        if not requires_grad and self._node is not None:
            raise RuntimeError("requires_grad_: only a leaf can stop requiring grad, use detach()")
        self.requires_grad = requires_grad
        return self

    def detach(self) -> Tensor:
        """The same memory without history."""
        detached: Tensor = self.with_history(self.data)
        return detached

    @property
    def grad(self) -> Tensor | None:
        if (recorder := active()) is not None:
            recorder.leaf(self, reads=True)
        return self._grad

    @grad.setter
    def grad(self, grad: Tensor | None) -> None:
        if grad is not None and not isinstance(grad, Tensor):
            raise TypeError(f"grad: expected a Tensor or None, got {type(grad).__name__}")
        if grad is not None and (grad.shape, grad.dtype) != (self.shape, self.dtype):
            raise ValueError(
                f"grad: expected {self.dtype} of shape {self.shape}, "
                f"got {grad.dtype} of shape {grad.shape}"
            )
        if (recorder := active()) is not None:
            recorder.leaf(self, reads=False)
        if self._buffer is not None and grad is None:
            fill(self._buffer, 0)
        elif self._buffer is not None and grad is not None and grad.data is not self._buffer:
            _core.copy(grad.data, out=self._buffer)
            grad = self.with_history(self._buffer, grad._node)
        self._grad = grad

    def move_grad(self, buffer: Array) -> None:
        """Keep the gradient in this memory from now on."""
        self._buffer = buffer
        self.grad = self._grad

    def convert_(self, dtype: DType) -> None:
        """Become a tensor of another dtype, in memory of its own and without a gradient."""
        self.replace_(self.data.astype(dtype))

    def replace_(self, data: Array) -> None:
        """Become a tensor on other memory, without a gradient."""
        self.data = data
        self._grad = self._buffer = None

    def accumulate_grad(self, dy: Tensor) -> None:
        """Add `dy` to `.grad`, in place where nothing is recorded; then run the hooks."""
        if (recorder := active()) is not None:
            recorder.leaf(self, reads=True)
        if self._grad is not None and not is_grad_enabled():
            _core.add(self._grad.data, dy.data, out=self._grad.data)
        elif self._grad is not None:
            self.grad = self._grad + dy
        elif self._buffer is None and isinstance(dy.data.base, np.ndarray):
            self._grad = self.with_history(_core.copy(dy.data), dy._node)  # a view
        else:
            self.grad = dy
        for hook in self._hooks:
            hook(self)

    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], object]) -> None:
        """Call `hook(tensor)` in each `backward`, as soon as this leaf's `.grad` is complete."""
        if not self.is_leaf:
            raise RuntimeError("register_post_accumulate_grad_hook: the tensor is not a leaf")
        self._hooks = (*self._hooks, hook)

    def backward(
        self,
        gradient: Tensor | ArrayLike | None = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
    ) -> None:
        """Add the gradient of this tensor to `.grad` of every leaf that it was computed from.

        Args:
            gradient: dL/d(self), same shape; default 1 for a single element.
            retain_graph: keep the graph for another backward. Default: `create_graph`.
            create_graph: record the backward pass too, so that it can be differentiated.

        Raises:
            RuntimeError: nothing was recorded; no `gradient` for more than one element; the graph
                was freed; an operation in it has no second derivative. No `.grad` was changed.
        """
        edge = self.edge
        if edge is None:
            raise RuntimeError("backward: nothing was recorded, no input requires grad")
        propagate(
            edge,
            seed_gradient(self, gradient, "backward"),
            retain_graph=create_graph if retain_graph is None else retain_graph,
            create_graph=create_graph,
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if self._node is not None:
            raise RuntimeError("deepcopy: only a leaf can be copied, use .detach() first")
        copy = type(self)(self.data.copy(), requires_grad=self.requires_grad)
        memo[id(self)] = copy
        if self._grad is not None:
            copy._grad = self.with_history(self._grad.data.copy())
        return copy

    def __reduce__(self) -> tuple[Any, ...]:
        if self._node is not None:
            raise RuntimeError("pickle: only a leaf can be pickled, use .detach() first")
        return type(self), (self.data, self.requires_grad)
