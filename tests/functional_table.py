"""Every operation: its reference, and inputs that stay off its kinks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import reference.conv
import reference.nn as ref
import thalweg as tw

F = tw.functional

LABELS = np.array([2, 0, 4, 1])
CONDITION = np.array([[True, False, True], [False, True, True]])
for _constant in (LABELS, CONDITION):
    _constant.setflags(write=False)  # so that a captured step may use them


class Op(NamedTuple):
    """An operation, its reference, and the shapes and range of inputs that stay off its kinks."""

    f: Callable[..., Any]
    reference: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...] = ((2, 3),)
    low: float = -2.0
    high: float = 2.0
    peer: str | None = None  # the same in torch


def reduce(f: Callable[..., Any], reduction: str) -> Callable[..., Any]:
    return lambda *arrays: ref.REDUCE[reduction](f(*arrays))


PAIR = ((2, 3), (2, 3))
ROW = ((2, 3), (3,))
COLUMN = ((2, 1), (4, 1, 3))

OPS: dict[str, Op] = {
    "add": Op(F.add, np.add, PAIR, peer="add"),
    "add row": Op(F.add, np.add, ROW, peer="add"),
    "add column": Op(F.add, np.add, COLUMN, peer="add"),
    "add 0-d": Op(F.add, np.add, ((), (2, 3)), peer="add"),
    "add scalar": Op(lambda x: 2 + x + 1.5, lambda x: x + 3.5),
    "sub": Op(F.sub, np.subtract, COLUMN, peer="sub"),
    "sub from scalar": Op(lambda x: 1 - x, lambda x: 1 - x),
    "mul": Op(F.mul, np.multiply, PAIR, peer="mul"),
    "mul column": Op(F.mul, np.multiply, COLUMN, peer="mul"),
    "mul by itself": Op(lambda x: x * x, lambda x: x * x),
    "div": Op(F.div, np.divide, PAIR, 0.5, 2, peer="div"),
    "div row": Op(F.div, np.divide, ROW, 0.5, 2, peer="div"),
    "scalar by x": Op(lambda x: 3 / x, lambda x: 3 / x, low=0.5),
    "pow": Op(F.pow, np.power, ROW, 0.5, 2, peer="pow"),
    "pow 0": Op(lambda x: F.pow(x, 0), lambda x: x**0),
    "pow 1": Op(lambda x: F.pow(x, 1), lambda x: x),
    "pow 2": Op(lambda x: F.pow(x, 2), lambda x: x * x),
    "pow 3": Op(lambda x: F.pow(x, 3), lambda x: x * x * x),
    "pow -1.5": Op(lambda x: F.pow(x, -1.5), lambda x: x**-1.5, low=0.5),
    "scalar to x": Op(lambda x: F.pow(2, x), lambda x: 2**x),
    "maximum": Op(F.maximum, np.maximum, PAIR, peer="maximum"),
    "minimum": Op(F.minimum, np.minimum, ROW, peer="minimum"),
    "where": Op(lambda a, b: F.where(CONDITION, a, b), lambda a, b: np.where(CONDITION, a, b), ROW),
    "clip": Op(lambda x: F.clip(x, -1.0, 0.5), lambda x: np.clip(x, -1.0, 0.5)),
    "neg": Op(F.neg, np.negative, peer="neg"),
    "abs": Op(F.abs, np.abs, peer="abs"),
    "sign": Op(F.sign, np.sign, peer="sign"),
    "square": Op(F.square, np.square, peer="square"),
    "sqrt": Op(F.sqrt, np.sqrt, low=0.5, peer="sqrt"),
    "reciprocal": Op(F.reciprocal, lambda x: 1 / x, low=0.5, peer="reciprocal"),
    "exp": Op(F.exp, np.exp, peer="exp"),
    "log": Op(F.log, np.log, low=0.5, peer="log"),
    "erf": Op(F.erf, ref.erf, peer="erf"),
    "sigmoid": Op(F.sigmoid, ref.sigmoid, low=-4, high=4, peer="sigmoid"),
    "tanh": Op(F.tanh, ref.tanh, peer="tanh"),
    "relu": Op(F.relu, ref.relu, peer="relu"),
    "leaky_relu": Op(
        lambda x: F.leaky_relu(x, 0.2), lambda x: ref.leaky_relu(x, 0.2), peer="leaky_relu:0.2"
    ),
    "gelu": Op(F.gelu, ref.gelu, peer="gelu"),
    "softplus": Op(F.softplus, ref.softplus, peer="softplus"),
    "sum": Op(F.sum, np.sum, peer="sum"),
    "sum 0": Op(lambda x: F.sum(x, 0), lambda x: x.sum(0)),
    "sum -1 kept": Op(lambda x: F.sum(x, -1, keepdims=True), lambda x: x.sum(-1, keepdims=True)),
    "sum (0, 2)": Op(lambda x: F.sum(x, (0, 2)), lambda x: x.sum((0, 2)), ((2, 3, 2),)),
    "mean": Op(F.mean, np.mean, peer="mean"),
    "mean 1": Op(lambda x: F.mean(x, 1), lambda x: x.mean(1)),
    "mean (0, 2)": Op(lambda x: F.mean(x, (0, 2)), lambda x: x.mean((0, 2)), ((2, 3, 2),)),
    "var": Op(lambda x: F.var(x, 1), lambda x: x.var(1, ddof=1)),
    "std": Op(lambda x: F.std(x, correction=0), lambda x: x.std()),
    "max": Op(F.max, np.max, peer="amax"),
    "max 0": Op(lambda x: F.max(x, 0), lambda x: x.max(0)),
    "min 1": Op(lambda x: F.min(x, 1, keepdims=True), lambda x: x.min(1, keepdims=True)),
    "norm": Op(F.norm, ref.norm, peer="norm"),
    "norm 1": Op(lambda x: F.norm(x, 1), lambda x: np.sqrt((x * x).sum(1))),
    "sum_squares 0": Op(lambda x: F.sum_squares(x, 0), lambda x: (x * x).sum(0)),
    "logsumexp": Op(F.logsumexp, lambda x: np.log(np.exp(x).sum(-1))),
    "logsumexp 0": Op(lambda x: F.logsumexp(x, 0), lambda x: np.log(np.exp(x).sum(0))),
    "softmax": Op(F.softmax, ref.softmax, peer="softmax:-1"),
    "softmax 0": Op(lambda x: F.softmax(x, 0), lambda x: ref.softmax(x, 0), ((3, 2, 2),)),
    "log_softmax": Op(F.log_softmax, ref.log_softmax, peer="log_softmax:-1"),
    "log_softmax 1": Op(
        lambda x: F.log_softmax(x, 1), lambda x: ref.log_softmax(x, 1), ((2, 3, 2),)
    ),
    "reshape": Op(lambda x: F.reshape(x, (3, -1)), lambda x: x.reshape(3, -1)),
    "permute": Op(lambda x: F.permute(x, (2, 0, -2)), lambda x: x.transpose(2, 0, 1), ((2, 3, 4),)),
    "transpose": Op(lambda x: F.transpose(x, 0, 2), lambda x: x.swapaxes(0, 2), ((2, 3, 4),)),
    "broadcast_to": Op(
        lambda x: F.broadcast_to(x, (2, 2, 3)), lambda x: np.broadcast_to(x, (2, 2, 3)), ((2, 1),)
    ),
    "slice": Op(lambda x: F.index(x, np.s_[::-1, 1:]), lambda x: x[::-1, 1:]),
    "element": Op(lambda x: F.index(x, (1, 2)), lambda x: x[1, 2]),
    "new axis": Op(lambda x: F.index(x, np.s_[..., None, 0]), lambda x: x[..., None, 0]),
    "mask": Op(lambda x: F.index(x, CONDITION), lambda x: x[CONDITION]),
    "repeated rows": Op(lambda x: F.index(x, [0, 1, 0, 0]), lambda x: x[[0, 1, 0, 0]]),
    "concatenate": Op(
        lambda a, b: F.concatenate([a, b, a], 1),
        lambda a, b: np.concatenate([a, b, a], 1),
        ((2, 3), (2, 1)),
    ),
    "stack": Op(lambda a, b: F.stack([a, b], -1), lambda a, b: np.stack([a, b], -1), PAIR),
    "copy": Op(F.copy, np.copy),
    "matmul": Op(F.matmul, np.matmul, ((2, 3), (3, 4)), peer="matmul"),
    "matmul transposed": Op(
        lambda a, b: F.matmul(F.transpose(a), F.transpose(b)),
        lambda a, b: a.T @ b.T,
        ((3, 2), (4, 3)),
    ),
    "matmul vectors": Op(F.matmul, np.matmul, ((3,), (3,)), peer="matmul"),
    "matmul vector matrix": Op(F.matmul, np.matmul, ((3,), (3, 2)), peer="matmul"),
    "matmul matrix vector": Op(F.matmul, np.matmul, ((2, 3), (3,)), peer="matmul"),
    "matmul batch vector": Op(F.matmul, np.matmul, ((4, 2, 3), (3,)), peer="matmul"),
    "matmul vector batch": Op(F.matmul, np.matmul, ((2,), (4, 2, 3)), peer="matmul"),
    "matmul batch matrix": Op(F.matmul, np.matmul, ((4, 2, 3), (3, 2)), peer="matmul"),
    "matmul matrix batch": Op(F.matmul, np.matmul, ((2, 3), (4, 3, 2)), peer="matmul"),
    "matmul broadcast": Op(F.matmul, np.matmul, ((2, 1, 2, 3), (3, 3, 2)), peer="matmul"),
    "matmul bias": Op(
        lambda a, b, c: F.matmul(a, b, bias=c), lambda a, b, c: a @ b + c, ((2, 3), (3, 4), (4,))
    ),
    **{
        f"matmul bias {name}": Op(
            lambda a, b, c, name=name: F.matmul(a, b, bias=c, activation=name),
            lambda a, b, c, f=f: f(a @ b + c),
            ((2, 3), (3, 4), (4,)),
        )
        for name, f in {
            "relu": ref.relu,
            "sigmoid": ref.sigmoid,
            "tanh": ref.tanh,
            "softplus": ref.softplus,
        }.items()
    },
    "linear": Op(F.linear, ref.linear, ((5, 3), (4, 3), (4,))),
    "linear 1-d": Op(F.linear, ref.linear, ((3,), (4, 3), (4,))),
    "linear 3-d": Op(F.linear, ref.linear, ((2, 3, 3), (4, 3), (4,))),
    "block_linear": Op(F.block_linear, ref.block_linear, ((5, 6), (2, 4, 3), (8,))),
    "block_linear 3-d": Op(F.block_linear, ref.block_linear, ((2, 2, 6), (3, 1, 2), (3,))),
    "conv2d": Op(
        F.conv2d, reference.conv.conv2d, ((2, 2, 4, 5), (3, 2, 3, 2), (3,)), peer="conv2d"
    ),
    "conv2d strided": Op(
        lambda x, w: F.conv2d(x, w, None, 2, (1, 0), groups=2),
        lambda x, w: reference.conv.conv2d(
            x, w, None, reference.conv.Geometry((2, 2), (1, 1, 0, 0), (1, 1), 2)
        ),
        ((1, 4, 4, 5), (2, 2, 3, 3)),
    ),
    "batch_norm": Op(
        lambda x, g, b: F.batch_norm(x, g, b, training=True)[0],
        lambda x, g, b: ref.batch_norm(x, g, b, 1e-5),
        ((5, 3), (3,), (3,)),
    ),
    "batch_norm 4-d": Op(
        lambda x, g, b: F.batch_norm(x, g, b, training=True, eps=0.1)[0],
        lambda x, g, b: ref.batch_norm(x, g, b, 0.1),
        ((2, 2, 2, 2), (2,), (2,)),
    ),
    "batch_norm channels last": Op(
        lambda x, g, b: F.batch_norm(x, g, b, training=True, axis=-1)[0],
        lambda x, g, b: ref.batch_norm(x, g, b, 1e-5, axis=-1),
        ((2, 2, 2, 3), (3,), (3,)),
    ),
    "layer_norm": Op(
        F.layer_norm, lambda x, g, b: ref.layer_norm(x, g, b, 1e-5), ((2, 3, 4), (4,), (4,))
    ),
    **{
        f"mse {r}": Op(
            lambda x, t, r=r: F.mse_loss(x, t, reduction=r), reduce(ref.mse, r), ((3, 2), (3, 2))
        )
        for r in ref.REDUCE
    },
    **{
        f"huber {r}": Op(
            lambda x, t, r=r: F.huber_loss(x, t, delta=0.7, reduction=r),
            reduce(lambda x, t: ref.huber(x, t, 0.7), r),
            ((3, 2), (3, 2)),
        )
        for r in ref.REDUCE
    },
    **{
        f"cross_entropy {r} {s}": Op(
            lambda x, r=r, s=s: F.cross_entropy(x, LABELS, label_smoothing=s, reduction=r),
            reduce(lambda x, s=s: ref.cross_entropy(x, LABELS, s), r),
            ((4, 5),),
        )
        for r in ("mean", "sum", "none")
        for s in (0.0, 0.1)
    },
    **{
        f"nll {r}": Op(
            lambda x, r=r: F.nll_loss(x, LABELS, reduction=r),
            reduce(lambda x: ref.nll(x, LABELS), r),
            ((4, 5),),
        )
        for r in ("mean", "sum", "none")
    },
    "bce": Op(
        lambda x: F.binary_cross_entropy_with_logits(
            x, (CONDITION * 0.75).astype(x.dtype), pos_weight=1.5
        ),
        lambda x: ref.bce_with_logits(x, CONDITION * 0.75, 1.5).mean(),
    ),
    "dropout": Op(
        lambda x: F.dropout(x, 0.5, seed=3, step=2, module=1) * 2.0,
        lambda x: x * (4.0 * (F.dropout(np.ones_like(x), 0.5, seed=3, step=2, module=1) != 0)),
        ((4, 3),),
    ),
}


def inputs(name: str, dtype: type = np.float64) -> list[np.ndarray]:
    """Drawn per row; distinct values at least 0.01 apart and away from 0 keep off every kink."""
    op = OPS[name]
    draw = np.random.default_rng(sum(map(ord, name)))
    sizes = [int(np.prod(shape)) for shape in op.shapes]
    grid = np.linspace(op.low, op.high, max(4 * sum(sizes), 50)) + 0.0123
    values = draw.permutation(grid)[: sum(sizes)]
    parts = np.split(values, np.cumsum(sizes)[:-1])
    return [p.reshape(s).astype(dtype) for p, s in zip(parts, op.shapes, strict=True)]
