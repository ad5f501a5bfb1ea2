"""The recorded graph and the engine that runs it backwards.

A `Node` is one recorded operation. It keeps the edges to where its inputs came from and the closure
that turns the gradient of its output into the gradients of its inputs; it keeps no input that the
closure does not need. An edge is another node, or a leaf tensor, or None where no gradient flows.

The engine visits a node once all of its consumers have been visited (Kahn 1962), with a list for a
stack, so that depth is bounded by memory and not by the interpreter.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar

if TYPE_CHECKING:
    from .backend import Array
    from .tensor import Tensor

P = ParamSpec("P")
R = TypeVar("R")

Gradients: TypeAlias = tuple[Any, ...]  # a tensor or None for each input
Backward: TypeAlias = "Callable[..., Gradients]"
Edge: TypeAlias = "Node | Tensor"

FREED = "backward: the graph was freed by an earlier backward; keep it with retain_graph=True"


class Node:
    """One recorded operation: `backward(dy)`, or `backward(dy, y)` if the output y was kept.

    `refusal` is the message of the error that running this node raises; the engine looks for it
    before it computes anything.
    """

    __slots__ = ("backward", "edges", "output", "refusal")

    def __init__(
        self, edges: tuple[Edge | None, ...], backward: Backward, output: Array | None
    ) -> None:
        self.edges = edges
        self.backward = backward
        self.output = output
        self.refusal: str | None = None

    def gradients(self, dy: Tensor) -> Gradients:
        if self.output is None:
            return self.backward(dy)
        return self.backward(dy, dy.with_history(self.output, self))

    def free(self) -> None:
        self.edges = ()
        self.output = None
        self.backward = _freed
        self.refusal = FREED


def _freed(*_: Any) -> Gradients:
    raise RuntimeError(FREED)


# --- whether operations are recorded -------------------------------------------------------------
class _Mode(threading.local):
    enabled = True


_mode = _Mode()


def is_grad_enabled() -> bool:
    """Whether operations on this thread are recorded for `backward`."""
    return _mode.enabled


class set_grad_enabled:
    """Record operations or not, inside a `with` block or a decorated function, on this thread."""

    def __init__(self, enabled: bool) -> None:
        self._enabled = enabled
        self._outer: list[bool] = []

    def __enter__(self) -> None:
        self._outer.append(_mode.enabled)
        _mode.enabled = self._enabled

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _mode.enabled = self._outer.pop()

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
            with set_grad_enabled(self._enabled):
                return function(*args, **kwargs)

        return wrapped


class no_grad(set_grad_enabled):
    """Do not record: `with no_grad(): …` or `@no_grad()`.

    >>> import thalweg as tw
    >>> x = tw.ones(2, requires_grad=True)
    >>> with tw.no_grad():
    ...     (x * 2).requires_grad
    False
    """

    def __init__(self) -> None:
        super().__init__(False)


class enable_grad(set_grad_enabled):
    """Record again inside a `no_grad` block."""

    def __init__(self) -> None:
        super().__init__(True)


# --- the engine ----------------------------------------------------------------------------------
def _count_uses(root: Edge, stop: frozenset[int]) -> dict[Edge, int]:
    """How many recorded uses each edge behind `root` has; nothing is looked for behind `stop`."""
    uses: dict[Edge, int] = {root: 0}
    stack = [root]
    while stack:
        edge = stack.pop()
        if not isinstance(edge, Node) or id(edge) in stop:
            continue
        if edge.refusal is not None:
            raise RuntimeError(edge.refusal)
        for child in edge.edges:
            if child is None:
                continue
            if child in uses:
                uses[child] += 1
            else:
                uses[child] = 1
                stack.append(child)
    return uses


def propagate(
    root: Edge,
    gradient: Tensor,
    *,
    retain_graph: bool,
    create_graph: bool,
    wanted: Sequence[Edge] | None = None,
    stop_at_wanted: bool = False,
) -> dict[Edge, Tensor]:
    """Run the graph behind `root` backwards from `gradient`.

    With `wanted` None, leaves collect into their `.grad`. Otherwise nothing is written and the
    gradients at the wanted edges are returned; `stop_at_wanted` does not look behind them.
    """
    keys = frozenset(id(edge) for edge in wanted or ())
    pending = _count_uses(root, keys if stop_at_wanted else frozenset())
    found: dict[Edge, Tensor] = {}
    gradients: dict[Edge, Tensor] = {root: gradient}
    ready = [root]
    with set_grad_enabled(create_graph):
        while ready:
            edge = ready.pop()
            dy = gradients.pop(edge, None)
            if dy is not None and id(edge) in keys:
                found[edge] = dy
            if not isinstance(edge, Node):
                if wanted is None and dy is not None:
                    edge.accumulate_grad(dy)
                continue
            if stop_at_wanted and id(edge) in keys:
                continue
            edges = edge.edges
            parts = edge.gradients(dy) if dy is not None else (None,) * len(edges)
            if not retain_graph:
                edge.free()
            for child, part in zip(edges, parts, strict=True):
                if child is None:
                    continue
                if part is dy and dy is not None:  # the child may keep it: say that it is shared
                    part = dy.with_history(dy.data.view(), dy._node)
                if part is not None:
                    gradients[child] = gradients[child] + part if child in gradients else part
                pending[child] -= 1
                if pending[child] == 0:
                    ready.append(child)
    return found
