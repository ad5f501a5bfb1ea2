"""Parameters and operations per layer: the columns of table 1 of Szegedy et al. 2015."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from .. import nn
from ..autograd import no_grad
from ..tensor import Tensor

Shape = tuple[int, ...]


class Count(NamedTuple):
    """One row: a child of the model, with all that is in it.

    window: "7x7/2", rows x columns / stride, of the last convolution or pooling; "" without one.
    output: the shape of its result for one sample.
    depth: layers with weights on the longest path; None where that is not known.
    weights: elements of kernels and matrices; others: of biases and normalisation.
    operations: multiplications with a weight, each with its addition, for one sample.
    """

    name: str
    kind: str
    window: str
    output: Shape
    depth: int | None
    weights: int
    others: int
    operations: int


def counts(model: nn.Module, input_shape: Shape) -> list[Count]:
    """A row for each child of `model`, or for the model itself if it has none.

    The model runs once on zeros, in evaluation mode; children that do not run then, such as
    auxiliary classifiers, have no row.

    Args:
        input_shape: of one sample, (3, 224, 224).

    >>> from thalweg import nn
    >>> row = counts(nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3)), (3, 224, 224))[0]
    >>> row.window, row.output, row.weights, row.operations
    ('7x7/2', (64, 112, 112), 9408, 118013952)
    """
    dtype = next((p.dtype for p in model.parameters()), np.dtype(np.float32))
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with _watched(model) as shapes, no_grad():
            model(Tensor(np.zeros((1, *input_shape), dtype)))
    finally:
        for module, training in modes:
            module.__dict__["training"] = training
    children = list(model.named_children()) or [(type(model).__name__, model)]
    return [_row(name, module, shapes) for name, module in children if module in shapes]


@contextmanager
def _watched(model: nn.Module) -> Iterator[dict[nn.Module, Shape]]:
    """The shapes of what modules return for one sample, filled while they run."""
    shapes: dict[nn.Module, Shape] = {}

    def watch(module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any) -> Any:
            y = forward(*arguments)
            shapes[module] = tuple(y.shape[1:])
            return y

        return watched

    modules = list(model.modules())
    for module in modules:
        module.__dict__["forward"] = watch(module, module.forward)
    try:
        yield shapes
    finally:
        for module in modules:
            del module.__dict__["forward"]


def _row(name: str, module: nn.Module, shapes: Mapping[nn.Module, Shape]) -> Count:
    weights = sum(p.numel() for p in module.parameters() if p.ndim > 1)
    every = sum(p.numel() for p in module.parameters())
    operations = sum(_operations(m, shapes[m]) for m in module.modules() if m in shapes)
    windows = [text for m in module.modules() if (text := _window(m))]
    window = "" if isinstance(module, nn.Concat) or not windows else windows[-1]
    kind = _kind(module)
    return Count(
        name, kind, window, shapes[module], _depth(module), weights, every - weights, operations
    )


def _operations(module: nn.Module, output: Shape) -> int:
    """Each element of a weight is used once for each position of the result that sees it."""
    if isinstance(module, nn.Conv2d):
        return module.weight.numel() * math.prod(output[1:])
    if isinstance(module, (nn.Linear, nn.BlockLinear)):
        return module.weight.numel() * math.prod(output[:-1])
    return 0


def _window(module: nn.Module) -> str:
    if not isinstance(module, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)):
        return ""
    (rows, columns), (stride, _) = _pair(module.kernel_size), _pair(module.stride)
    return f"{rows}x{columns}/{stride}"


def _pair(size: Any) -> tuple[int, int]:
    return size if isinstance(size, tuple) else (size, size)


def _kind(module: nn.Module) -> str:
    inside = [m for m in module.modules() if not isinstance(m, nn.Sequential)]
    if isinstance(module, nn.Concat):
        return "inception" if len(inside) > 1 else "concat"
    named = [m for m in inside if isinstance(m, (nn.Conv2d, nn.Linear, nn.MaxPool2d))]
    if isinstance(module, nn.Sequential) and named:
        return type(named[-1]).__name__
    return type(module).__name__


def _depth(module: nn.Module) -> int | None:
    children = list(module.children())
    if not children:
        return int(isinstance(module, (nn.Conv2d, nn.Linear, nn.BlockLinear)))
    parts = [_depth(child) for child in children]
    depths = [depth for depth in parts if depth is not None]
    if len(depths) < len(parts):
        return None
    if isinstance(module, nn.Sequential):
        return sum(depths)
    return max(depths) if isinstance(module, (nn.Concat, nn.Residual)) else None


# --- as text --------------------------------------------------------------------------------------

# Table 1 of Szegedy et al. 2015 ("Going deeper with convolutions"): parameters, operations.
GOOGLENET_PAPER = {
    "conv1": ("2.7K", "34M"),
    "conv2": ("112K", "360M"),
    "inception3a": ("159K", "128M"),
    "inception3b": ("380K", "304M"),
    "inception4a": ("364K", "73M"),
    "inception4b": ("437K", "88M"),
    "inception4c": ("463K", "100M"),
    "inception4d": ("580K", "119M"),
    "inception4e": ("840K", "170M"),
    "inception5a": ("1072K", "54M"),
    "inception5b": ("1388K", "71M"),
    "linear": ("1000K", "1M"),
}


def table(rows: Sequence[Count], published: Mapping[str, tuple[str, str]] | None = None) -> str:
    """The rows as text with their sums; published numbers beside them, `*` where they differ.

    Published counts are rounded, and their K is 1024 (163328 weights are "159K"): they differ
    where they are more than 3 % away.
    """
    head = ["layer", "type", "window", "output", "depth", "weights", "others", "operations"]
    if published is not None:
        head[6:] = ["paper", "", "others", "operations", "paper", ""]
    lines = [head]
    for row in rows:
        output = "x".join(map(str, (*row.output[1:], row.output[0])))
        depth = "" if not row.depth else str(row.depth)
        cells = [row.name, row.kind, row.window, output, depth, f"{row.weights:,}"]
        cells += [f"{row.others:,}", _millions(row.operations)]
        if published is not None:
            weights, operations = published.get(row.name, ("", ""))
            cells[6:6] = [weights, _star(row.weights, weights, {"K": 1024})]
            cells += [operations, _star(row.operations, operations, {"M": 10**6})]
        lines.append(cells)
    total = ["all", "", "", "", "", f"{sum(row.weights for row in rows):,}"]
    total += [f"{sum(r.others for r in rows):,}", _millions(sum(r.operations for r in rows))]
    if published is not None:
        total[6:6] = ["", ""]
        total += ["", ""]
    return _aligned([*lines, total])


def _millions(operations: int) -> str:
    return f"{operations / 1e6:.1f} M" if operations else ""


def _star(ours: int, theirs: str, units: Mapping[str, int]) -> str:
    if not theirs:
        return ""
    value = float(theirs[:-1]) * units[theirs[-1]]
    return "*" if abs(ours - value) > 0.03 * value else ""


def _aligned(lines: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = []
    for line in lines:
        cells = [
            cell.ljust(width) if i < 4 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        text.append("  ".join(cells).rstrip())
    return "\n".join(text)
