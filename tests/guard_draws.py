"""How the calls of guard_sweep.py are drawn: shapes, layouts, options. All elements are ones."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

import thalweg as tw
from thalweg import _core

Array = npt.NDArray[Any]
Rng = np.random.Generator
Shape = tuple[int, ...]
Call = Callable[..., object]
Trial = tuple[str, Callable[[], object]]  # what is called, and the call
Drawn = Callable[[Rng, str], Trial]

FLOATS: list[npt.DTypeLike] = [np.float32, np.float64]
# Widths of vectors and tiles, of blocks of K, of the reduction tree's blocks, and their neighbours.
EDGES = [16, 24, 32, 48, 64, 96, 128, 181, 192, 256, 384, 512, 576, 768]
LONG = [1024, 1536, 3072, 4096, 6144, 8192]


# --- layouts: the last (or first) element in memory lies at the forbidden page -------------------
def rows(shape: Shape, dtype: npt.DTypeLike) -> Array:
    return np.ones(shape, dtype)


def columns(shape: Shape, dtype: npt.DTypeLike) -> Array:
    return np.ones(shape, dtype, order="F")


def stepped(shape: Shape, dtype: npt.DTypeLike) -> Array:
    frame = np.ones([max(2 * n - 1, 0) for n in shape], dtype)
    return frame[tuple(slice(None, None, 2) for _ in shape)]


def reversed_axes(shape: Shape, dtype: npt.DTypeLike) -> Array:
    return np.ones(shape, dtype)[tuple(slice(None, None, -1) for _ in shape)]


def transposed(shape: Shape, dtype: npt.DTypeLike) -> Array:
    """The last two axes swapped; a stack of matrices stays a stack."""
    if len(shape) < 2:
        return np.ones(shape, dtype)
    return np.ones((*shape[:-2], shape[-1], shape[-2]), dtype).swapaxes(-1, -2)


LAYOUTS = [rows, columns, stepped, reversed_axes, transposed]


def extent(rng: Rng, most: int = 67) -> int:
    """1 … most, or an edge, or its neighbour."""
    if rng.random() < 0.8:
        return int(rng.integers(1, most + 1))
    return int(rng.choice(EDGES) + rng.integers(-1, 2))


# --- how arguments are drawn ---------------------------------------------------------------------
def drawn(shapes: Callable[[Rng], list[Shape]], call: Call, layouts: Any = LAYOUTS) -> Drawn:
    """call(*arrays) on ones of the drawn shapes, of one dtype, each in a layout of its own."""

    def draw(rng: Rng, name: str) -> Trial:
        dtype = FLOATS[rng.integers(2)]
        chosen = [(shape, layouts[rng.integers(len(layouts))]) for shape in shapes(rng)]
        listed = ", ".join(f"{layout.__name__} {shape}" for shape, layout in chosen)
        return (
            f"{name} {np.dtype(dtype)}: {listed}",
            lambda: call(*(layout(shape, dtype) for shape, layout in chosen)),
        )

    return draw


def same(count: int, rank: int = 2) -> Callable[[Rng], list[Shape]]:
    """`count` arrays of one shape, now and then a long vector."""

    def shapes(rng: Rng) -> list[Shape]:
        if rng.random() < 0.1:
            return [(int(rng.choice(LONG) + rng.integers(-1, 2)),)] * count
        outer = rng.integers(1, 12, rng.integers(0, rank)).tolist()
        return [(*outer, extent(rng))] * count

    return shapes


def matrix(rng: Rng) -> list[Shape]:
    return [(extent(rng), extent(rng))]


def two_matrices(rng: Rng) -> list[Shape]:
    return matrix(rng) * 2


def images(rng: Rng) -> list[Shape]:
    channels = extent(rng, 40)
    if rng.random() < 0.3:
        return [(int(rng.integers(2, 70)), channels)]
    return [(int(rng.integers(2, 5)), channels, *map(int, rng.integers(1, 9, 2)))]


def call_with_out(function: Call) -> Call:
    """Into a guarded `out` that is not contiguous either."""
    return lambda *arrays: function(*arrays, out=stepped(arrays[0].shape, arrays[0].dtype))


@functools.cache
def product_types() -> dict[np.dtype[Any], np.dtype[Any]]:
    """Types of operands, and of the result: bfloat16 only where this build multiplies it."""
    types = [np.dtype(np.float32), np.dtype(np.float64), np.dtype(ml_dtypes.bfloat16)]
    results = {}
    for dtype in types:
        with contextlib.suppress(TypeError):
            results[dtype] = _core.matmul(np.ones((2, 2), dtype), np.ones((2, 2), dtype)).dtype
    return results


def product(rng: Rng, name: str) -> Trial:
    m, n, k = (extent(rng) for _ in range(3))
    if rng.random() < 0.1:
        m, n, k = rng.permutation([1, int(rng.integers(1, 5)), int(rng.choice(LONG)) + 1]).tolist()
    dtype, result = list(product_types().items())[rng.integers(len(product_types()))]
    batch: Shape = () if m * n * k > 60000 else [(), (), (3,), (2, 3), (40,)][rng.integers(5)]
    batch_b = [batch, (), tuple(1 for _ in batch)][rng.integers(3)]
    layout_a, layout_b, layout_c = (LAYOUTS[i] for i in rng.integers(len(LAYOUTS), size=3))
    options: dict[str, Any] = {
        "accumulate": bool(rng.random() < 0.3),
        "precision": str(rng.choice(["strict", "highest", "high", "medium"])),
    }
    with_bias, clipped = rng.random(2) < 0.4
    if clipped:
        options["activation"] = "relu"

    def call() -> None:
        a, b = layout_a((*batch, m, k), dtype), layout_b((*batch_b, k, n), dtype)
        out = layout_c((*batch, m, n), result)
        bias = rows((n,), result) if with_bias else None
        _core.matmul(a, b, out=out, bias=bias, **options)
        # Ones: the result tells how many products were added.
        expected = np.float64(k + options["accumulate"] + with_bias).astype(result)
        assert (out == expected).all(), "wrong sum"

    layouts = " ".join(layout.__name__ for layout in (layout_a, layout_b, layout_c))
    return f"{name} {dtype} {batch}x{batch_b} {(m, n, k)} {layouts} {options}", call


def batch_norm(rng: Rng, name: str) -> Trial:
    (shape,) = images(rng)
    layout, last = LAYOUTS[rng.integers(len(LAYOUTS))], bool(rng.integers(2))
    if last:
        shape = (shape[0], *shape[2:], shape[1])
    dtype = FLOATS[rng.integers(2)]
    residual, activation = rng.random() < 0.4, [None, "relu", "tanh"][rng.integers(3)]
    axis = -1 if last else 1

    def call() -> None:
        x, dy = layout(shape, dtype), rows(shape, dtype)
        affine = [rows((shape[axis],), dtype) for _ in range(4)]
        added = layout(shape, dtype) if residual else None
        _, saved = _core.batch_norm(
            x, *affine, training=True, axis=axis, residual=added, activation=activation
        )
        _core.batch_norm_backward(dy, x, affine[0], saved, axis=axis)
        _core.batch_norm(x, *affine, training=False, axis=axis)

    return f"{name} {np.dtype(dtype)} {shape} {axis=} {layout.__name__} {activation=}", call


def channels_last(shape: Shape, dtype: npt.DTypeLike) -> Array:
    n, c, h, w = shape
    return np.ones((n, h, w, c), dtype).transpose(0, 3, 1, 2)


def convolution(rng: Rng, name: str) -> Trial:
    """Forward and both gradients; without padding the result tells how many products were added."""
    layouts = [[rows, channels_last, stepped, reversed_axes][i] for i in rng.integers(4, size=3)]
    groups = int(rng.integers(1, 4))
    fan_in, fan_out = (groups * (extent(rng, 20) if rng.random() < 0.7 else 1) for _ in range(2))
    kernel, stride, dilation = (tuple(map(int, rng.integers(1, most, 2))) for most in (5, 4, 3))
    if depthwise := rng.random() < 0.2:
        groups = fan_in = fan_out = extent(rng, 40)
    if fewer_products := not depthwise and rng.random() < 0.4:
        kernel, stride, dilation = (3, 3), (1, 1), (1, 1)
    padding = tuple(int(p) for p in rng.integers(0, 3, 4) * (rng.random() < 0.5))
    images = int(rng.integers(1, 16) if rng.random() < 0.3 else rng.integers(1, 3))
    shape = (images, fan_in, *map(int, rng.integers(8, 20, 2)))
    dtype = [*FLOATS, ml_dtypes.bfloat16][rng.integers(3)]
    activation = [None, "relu"][rng.integers(2)]
    precision = str(rng.choice(["high", "medium"] if fewer_products else ["highest", "medium"]))
    options: dict[str, Any] = {
        "stride": stride, "padding": padding, "dilation": dilation, "groups": groups,
        "precision": precision,
    }  # fmt: skip

    def call() -> None:
        x, w = layouts[0](shape, dtype), layouts[1]((fan_out, fan_in // groups, *kernel), dtype)
        y = _core.conv2d(x, w, rows((fan_out,), dtype), activation=activation, **options)
        products = w[0].size
        exact = not any(padding) and not fewer_products
        assert not exact or (y == np.float64(products + 1).astype(dtype)).all(), "wrong sum"
        dy = layouts[2](y.shape, dtype)
        _core.conv2d_data_gradient(dy, w, shape[2:], **options)
        dw = _core.conv2d_weight_gradient(dy, x, kernel, **options)
        assert not exact or (dw == np.float64(y[:, 0].size).astype(dtype)).all(), "wrong sum"

    listed = " ".join(layout.__name__ for layout in layouts)
    return f"{name} {np.dtype(dtype)} {shape} {fan_out} {kernel} {options} {listed}", call


def pooling(rng: Rng, name: str) -> Trial:
    """Forward, backward and pick of one window; local response normalisation of the same x."""
    layout = [rows, channels_last, stepped, reversed_axes][rng.integers(4)]
    shape = tuple(int(n) for n in (rng.integers(1, 4), extent(rng, 40), *rng.integers(4, 40, 2)))
    kernel, stride = rng.integers(1, 5, 2), rng.integers(1, 4, 2)
    padding = rng.integers(0, kernel // 2 + 1)
    window = [tuple(map(int, pair)) for pair in (kernel, stride, padding)]
    dtype, size = FLOATS[rng.integers(2)], int(rng.integers(1, 8))
    activation, ceil = [None, "relu"][rng.integers(2)], bool(rng.integers(2))

    def call() -> None:
        x = layout(shape, dtype)
        y, saved = _core.max_pool2d(x, *window, 1, ceil, activation=activation)
        _core.max_pool2d_backward(layout(y.shape, dtype), x, saved)
        _core.max_pool2d_pick(x, saved)
        y = _core.avg_pool2d(x, *window, ceil)
        _core.avg_pool2d_backward(layout(y.shape, dtype), x, *window, ceil)
        _core.local_response_norm_backward(_core.local_response_norm(x, size), x, size)

    return f"{name} {np.dtype(dtype)} {shape} {layout.__name__} {window} {ceil=} {size=}", call


def layer_norm(x: Array) -> None:
    gamma, beta = (rows(x.shape[-1:], x.dtype) for _ in range(2))
    _, saved = _core.layer_norm(x, gamma, beta)
    _core.layer_norm_backward(rows(x.shape, x.dtype), x, gamma, saved)


def cross_entropy(logits: Array) -> None:
    target = np.arange(logits.shape[0], dtype=np.int64) % logits.shape[1]
    _core.softmax_cross_entropy(logits, target)


def optimizer(kind: type[tw.optim.Optimizer], **options: Any) -> Drawn:
    """Two steps over three tensors; gradients clipped in one draw, zeroed in another."""

    def draw(rng: Rng, name: str) -> Trial:
        sizes = [(extent(rng), extent(rng, 20)) for _ in range(3)]
        dtype = np.float32 if options else FLOATS[rng.integers(2)]
        clip, zero = ([None, 1.0][rng.integers(2)], bool(rng.integers(2)))

        def call() -> None:
            params, grads = ([rows(size, dtype) for size in sizes] for _ in range(2))
            stepper = kind(params, max_norm=clip, **options)  # type: ignore[call-arg]
            for _ in range(2):
                stepper.step(grads, zero_grad=zero)

        return f"{name} {np.dtype(dtype)} {sizes} {clip=} {zero=}", call

    return draw
