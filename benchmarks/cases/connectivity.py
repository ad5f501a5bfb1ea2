"""Local against global connectivity: 4096 units to 4096, forward and both gradients, 64 samples.

The same 16 x 16 x 16 units joined by a dense matrix, by one whose 16 diagonal blocks alone are not
zero (each channel sees itself), and by a 3 x 3 convolution (each unit sees its neighbours in all
channels, with shared weights). Operations are in the case's name: weights times the places where
each is used.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from case import Array, Case, Side, Work
from measure import Record, Run, compare

BATCH, CHANNELS, SIZE = 64, 16, 16
UNITS = CHANNELS * SIZE * SIZE
# Shape of the weight, how often each is used for one sample, shape of x for one sample
KINDS: dict[str, tuple[tuple[int, ...], int, tuple[int, ...]]] = {
    "dense": ((UNITS, UNITS), 1, (UNITS,)),
    "block-diagonal": ((CHANNELS, SIZE * SIZE, SIZE * SIZE), 1, (UNITS,)),
    "convolution": ((CHANNELS, CHANNELS, 3, 3), SIZE * SIZE, (CHANNELS, SIZE, SIZE)),
}


def records(run: Run) -> Iterator[Record]:
    return compare("connectivity", cases(run.quick), run)


def cases(quick: bool) -> Iterator[Case]:
    for kind, (shape, uses, _) in KINDS.items():
        weights = int(np.prod(shape))
        sides = {"thalweg": functools.partial(_ours, kind)}
        sides["torch"] = functools.partial(_torch, kind)
        name = f"{kind}, {weights:,} weights, {weights * uses / 1e6:.2f} M multiply-adds"
        yield Case(name, sides, 1e-3, Work(6.0 * BATCH * weights * uses))


def _arrays(kind: str) -> tuple[Array, Array, Array]:
    """x, weight, dy."""
    shape, _, sample = KINDS[kind]
    rng = np.random.default_rng(0)
    weight = rng.standard_normal(shape, np.float32) / np.float32(np.sqrt(np.prod(shape[1:])))
    x, dy = (rng.standard_normal((BATCH, *sample), np.float32) for _ in range(2))
    return x, weight, dy


def _side(calls: Callable[[], list[Any]]) -> Side:
    last: list[Any] = []

    def call() -> None:
        last[:] = calls()

    return Side(call, lambda: [np.asarray(t) for t in last])


def _ours(kind: str) -> Side:
    import thalweg as tw

    x, weight, dy = _arrays(kind)
    layer = {
        "dense": tw.linear,
        "block-diagonal": tw.block_linear,
        "convolution": functools.partial(tw.conv2d, padding=1),
    }[kind]

    def step() -> list[Any]:
        a, w = (tw.Tensor(array, requires_grad=True) for array in (x, weight))
        y = layer(a, w)
        y.backward(dy)
        assert a.grad is not None and w.grad is not None
        return [y.data, a.grad.data, w.grad.data]

    return _side(step)


def _torch(kind: str) -> Side:
    import torch

    f = torch.nn.functional
    x, weight, dy = map(torch.from_numpy, _arrays(kind))

    def blocks(x: Any, w: Any) -> Any:
        rows = x.reshape(BATCH, CHANNELS, -1).transpose(0, 1)
        return torch.bmm(rows, w.transpose(1, 2)).transpose(0, 1).reshape(BATCH, -1)

    layer = {
        "dense": f.linear,
        "block-diagonal": blocks,
        "convolution": functools.partial(f.conv2d, padding=1),
    }[kind]

    def step() -> list[Any]:
        a, w = x.detach().requires_grad_(), weight.detach().requires_grad_()
        y = layer(a, w)
        y.backward(dy)
        return [y.detach(), a.grad, w.grad]

    return _side(step)
