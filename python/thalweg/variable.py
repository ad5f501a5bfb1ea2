"""What an operation needs of a tensor: its array, and a way to record what was done with it.

`functional` is written against this page alone; `Tensor` adds what people type.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from .autograd import Backward, Edge, Node, is_grad_enabled
from .backend import Array, ArrayLike, as_array
from .recording import constant

if TYPE_CHECKING:
    from typing_extensions import Self

    from .tensor import Tensor

T = TypeVar("T")
SCALARS = (int, float, np.floating, np.integer)


class Variable:
    """An array and where it came from. The only subclasses are `Tensor` and its own."""

    __slots__ = ("__weakref__", "_buffer", "_grad", "_hooks", "_node", "data", "requires_grad")

    data: Array
    requires_grad: bool
    _node: Node | None
    _grad: Tensor | None
    _buffer: Array | None
    _hooks: tuple[Callable[[Tensor], object], ...]

    @property
    def edge(self) -> Edge | None:
        """Where a gradient for this tensor flows; None if it needs none."""
        raise NotImplementedError

    def with_history(self, data: Array, node: Node | None = None) -> Self:
        """The tensor on `data` that came from `node`; nothing is checked."""
        raise NotImplementedError


def data_of(x: Any) -> ArrayLike:
    """The array of a tensor; anything else as it is, for `_core` to judge."""
    return x.data if isinstance(x, Variable) else x


def array_of(x: Any) -> Array:
    """The NumPy array of a tensor or of anything that exports memory."""
    return x.data if isinstance(x, Variable) else as_array(x)


def operands(a: Any, b: Any) -> tuple[ArrayLike, ArrayLike]:
    """The arrays of two operands, where a Python scalar takes the dtype of the other."""
    a, b = data_of(a), data_of(b)
    if isinstance(b, SCALARS):
        return a, constant(np.asarray(b, as_array(a).dtype))
    if isinstance(a, SCALARS):
        return constant(np.asarray(a, as_array(b).dtype)), b
    return a, b


def needs_grad(x: Any) -> bool:
    return isinstance(x, Variable) and x.requires_grad


def record(data: Array, backward: Backward, x: T, *others: Any, keep_output: bool = False) -> T:
    """The result `data` of an operation on the inputs `x, *others`, in the kind of its inputs.

    An array if no input is a tensor; a tensor if one is, with history if one requires grad and
    recording is on. `backward(dy)` returns one gradient an input, None where `needs_grad` is
    false; with `keep_output` it is called as `backward(dy, y)`, since a closure over the output
    would be a reference cycle.
    """
    inputs = (x, *others)
    like: Variable | None = None
    recorded = False
    for each in inputs:
        if isinstance(each, Variable):
            like = each
            recorded = recorded or each.requires_grad
    result: Any = data
    if like is not None:
        node = None
        if recorded and is_grad_enabled():
            edges = tuple([e.edge if isinstance(e, Variable) else None for e in inputs])
            node = Node(edges, backward, data if keep_output else None)
        result = like.with_history(data, node)
    kind: T = result
    return kind


def refuse_to_record(name: str, remedy: str, *inputs: Any) -> None:
    """RuntimeError if this call of `name` would have to be recorded."""
    if is_grad_enabled() and any(needs_grad(x) for x in inputs):
        raise RuntimeError(f"{name} is not recorded for backward: {remedy}")


def first_order(name: str, gradients: tuple[Any, ...], *inputs: Any) -> Any:
    """Gradients of a fused operation that has no second derivative, as tensors.

    Where a graph of the backward pass is being created, they remember that they depend on
    `inputs`, and the error of `backward` through them names the operation.
    """
    like = next(x for x in inputs if isinstance(x, Variable))
    node = None
    if is_grad_enabled() and any(needs_grad(x) for x in inputs):
        edges = tuple([x.edge if isinstance(x, Variable) else None for x in inputs])
        node = Node(edges, lambda *_: (), None)
        node.refusal = f"backward: {name} has no second derivative"
    return tuple(None if g is None else like.with_history(g, node) for g in gradients)
