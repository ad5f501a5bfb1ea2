"""Gradients as values: `grad`, and the second derivatives of fused operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..autograd import Gradients, enable_grad, propagate
from ..backend import ArrayLike
from ..recording import constant
from ..variable import Variable, array_of, needs_grad, record

if TYPE_CHECKING:
    from ..tensor import Tensor


def seed_gradient(y: Any, gradient: Tensor | ArrayLike | None, name: str) -> Tensor:
    """dL/dy as a tensor of y's shape and dtype; 1 by default for a single element."""
    if gradient is None:
        if y.data.size != 1:
            raise RuntimeError(
                f"{name}: gradient is needed for a result of shape {y.shape}; "
                "only a single element has an implicit gradient of 1"
            )
        return y.with_history(constant(np.ones(y.shape, y.dtype)))  # type: ignore[no-any-return]
    array = array_of(gradient)
    if array.shape != y.shape:
        raise ValueError(f"{name}: gradient must have shape {y.shape}, got {array.shape}")
    if array.dtype != y.dtype:
        raise TypeError(f"{name}: gradient must be {y.dtype}, got {array.dtype}")
    node = gradient._node if isinstance(gradient, Variable) else None
    return y.with_history(array.view(), node)  # type: ignore[no-any-return]


def grad(
    output: Tensor,
    inputs: Sequence[Tensor],
    gradient: Tensor | ArrayLike | None = None,
    *,
    retain_graph: bool | None = None,
    create_graph: bool = False,
) -> tuple[Tensor | None, ...]:
    """d(output)/d(each input), weighted by `gradient`; no `.grad` is written.

    Args:
        output: a recorded result.
        inputs: tensors that require grad, leaves or intermediate results.
        gradient: dL/d(output); default 1 for a single element.
        create_graph: record the computation, so that the result can be differentiated again.

    Returns:
        One tensor an input, None where the output does not depend on it.

    >>> import thalweg as tw
    >>> x = tw.tensor([3.0], requires_grad=True)
    >>> (slope,) = tw.grad(x**3, [x], create_graph=True)
    >>> tw.grad(slope, [x])
    (tensor([18.]),)
    """
    edges = [x.edge for x in inputs]
    if output.edge is None:
        raise RuntimeError("grad: output was not recorded, no input requires grad")
    for i, edge in enumerate(edges):
        if edge is None:
            raise RuntimeError(f"grad: input {i} does not require grad")
    wanted = [edge for edge in edges if edge is not None]
    found = propagate(
        output.edge,
        seed_gradient(output, gradient, "grad"),
        retain_graph=create_graph if retain_graph is None else retain_graph,
        create_graph=create_graph,
        wanted=wanted,
    )
    return tuple(found.get(edge) for edge in wanted)


def differentiate(formula: Callable[..., Any], inputs: tuple[Any, ...], dy: Tensor) -> Gradients:
    """Gradients of `formula(*inputs)` weighted by dy, recorded so that they have derivatives.

    The inputs enter through aliases, and nothing behind an alias is visited: a second derivative
    costs the formula, not the history of its inputs.
    """
    with enable_grad():
        aliases = [record(x.data, lambda g: (g,), x) if needs_grad(x) else x for x in inputs]
        y = formula(*aliases)
    edges = [alias.edge if needs_grad(alias) else None for alias in aliases]
    found = propagate(
        y.edge,
        dy,
        retain_graph=True,
        create_graph=True,
        wanted=[edge for edge in edges if edge is not None],
        stop_at_wanted=True,
    )
    return tuple(None if edge is None else found.get(edge) for edge in edges)
