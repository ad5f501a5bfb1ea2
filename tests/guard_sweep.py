"""Calls every kernel on drawn shapes, all of NumPy's memory guarded:

    python guard_sweep.py ISA FAMILY end|begin DRAWS LABEL_FILE

An access outside an array kills this process; LABEL_FILE then names the call that it was in.
A new kernel is a new line in FAMILIES: how its arguments are drawn, and a call.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator

import numpy as np

import thalweg as tw
from guard_draws import (
    Call,
    Drawn,
    Trial,
    batch_norm,
    call_with_out,
    convolution,
    cross_entropy,
    drawn,
    layer_norm,
    matrix,
    optimizer,
    pooling,
    product,
    product_types,
    rows,
    same,
    two_matrices,
)
from guard_pages import guarded_numpy
from thalweg import _core

UNARY = [
    "abs", "neg", "sign", "square", "sqrt", "reciprocal", "exp", "log", "erf", "sigmoid", "tanh",
    "relu", "leaky_relu", "gelu", "softplus", "copy",
]  # fmt: skip
BINARY = [
    "add", "sub", "mul", "div", "pow", "maximum", "minimum", "above", "less",
    "equal", "join", "relu_backward",
    "leaky_relu_backward", "sigmoid_backward", "tanh_backward", "softplus_backward",
    "gelu_backward",
]  # fmt: skip
REDUCTIONS = ["sum", "mean", "max", "min", "sum_squares"]
ROW_WISE = ["softmax", "log_softmax"]


def of(names: list[str], draw: Callable[[Call], Drawn]) -> dict[str, Drawn]:
    return {name: draw(getattr(_core, name)) for name in names}


FAMILIES: dict[str, dict[str, Drawn]] = {
    "products": {"matmul": product},
    "elementwise": {
        **of(UNARY, lambda f: drawn(same(1, rank=3), call_with_out(f))),
        **of(BINARY, lambda f: drawn(same(2, rank=3), call_with_out(f))),
        "add row": drawn(matrix, lambda x: _core.add(x, rows(x.shape[1:], x.dtype))),
        "dropout": drawn(same(1), lambda x: _core.dropout(x, 0.5, seed=1)),
    },
    "rows": {
        **of(REDUCTIONS, lambda f: drawn(matrix, lambda x: (f(x, axis=0), f(x, axis=1), f(x)))),
        **of(ROW_WISE, lambda f: drawn(matrix, lambda x: (f(x, axis=0), f(x, axis=1)))),
        "softmax_backward": drawn(two_matrices, _core.softmax_backward),
        "log_softmax_backward": drawn(two_matrices, _core.log_softmax_backward),
        "softmax_cross_entropy": drawn(matrix, cross_entropy),
        "batch_norm": batch_norm,
        "layer_norm": drawn(matrix, layer_norm),
    },
    "convolution": {"conv2d": convolution},
    "pooling": {"pooling": pooling},
    "optimizers": {
        "SGD": optimizer(tw.optim.SGD, lr=0.1, momentum=0.9),
        "Adagrad": optimizer(tw.optim.Adagrad),
        "Adadelta": optimizer(tw.optim.Adadelta),
        "RMSprop": optimizer(tw.optim.RMSprop, centered=True),
        "Rprop": optimizer(tw.optim.Rprop),
        "Adam": optimizer(tw.optim.Adam),
        "Adam amsgrad": optimizer(tw.optim.Adam, amsgrad=True),
        "Adam int8": optimizer(tw.optim.Adam, state_dtype="int8"),
        "SGD int8": optimizer(tw.optim.SGD, lr=0.1, momentum=0.9, state_dtype="int8"),
        "NAdam": optimizer(tw.optim.NAdam),
        "Adamax": optimizer(tw.optim.Adamax),
        "Lion": optimizer(tw.optim.Lion),
        "LARS": optimizer(tw.optim.LARS, lr=0.1),
        "LAMB": optimizer(tw.optim.LAMB),
    },
}  # fmt: skip
# Reads one element too many: the sweep has to die of it (tests/test_guard_pages.py).
PLANTED = {
    "planted": drawn(
        same(1, rank=1),
        lambda x: _core.relu(np.lib.stride_tricks.as_strided(x, (x.size + 1,), x.strides)),
        layouts=[rows],
    )
}


def trials(family: str, draws: int, seed: int) -> Iterator[Trial]:
    """`draws` calls, shared out evenly over the family's kernels."""
    kernels = FAMILIES.get(family, PLANTED)
    rng = np.random.default_rng(seed)
    for i in range(max(draws, len(kernels))):
        name = list(kernels)[i % len(kernels)]
        yield kernels[name](rng, name)


def main(isa: str, family: str, where: str, draws: str, label_file: str) -> None:
    _core.use_isa(isa)
    product_types()  # raises inside, which guarded memory does not stand
    label_fd = os.open(label_file, os.O_RDWR | os.O_CREAT)
    with guarded_numpy(at_end=where == "end"):
        for label, call in trials(family, int(draws), seed=int(where == "end")):
            os.ftruncate(label_fd, os.pwrite(label_fd, label.encode(), 0))
            call()
    os._exit(0)  # arrays of modules may not outlive their allocator


if __name__ == "__main__":
    main(*sys.argv[1:])
