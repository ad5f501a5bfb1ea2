"""Every public kernel against every class of bad array: the right answer, or a typed error that
names the argument, and in either case no byte of any argument changed that the call does not own.

A row gives a kernel, its good arguments and which of them it writes. A class turns a good array
into a bad one with the same values where its layout is what is bad ("layout": the answer must be
right or refused), or into something that no kernel may accept ("content": must be refused).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from thalweg import _core

Array = NDArray[Any]


def normal(*shape: int, seed: int = 0, dtype: type = np.float32) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def positive(*shape: int, seed: int = 0) -> Array:
    return np.abs(normal(*shape, seed=seed)) + np.float32(0.5)


@dataclass(frozen=True)
class Row:
    name: str
    call: Callable[..., Any]
    inputs: dict[str, Array]
    outputs: dict[str, Array] = field(default_factory=dict)
    fixed_shape: bool = False  # of a lone input, by what the call adds


def with_out(name: str, *inputs: str, draw: Callable[..., Array] = normal) -> Row:
    function = getattr(_core, name)
    arrays = {key: draw(4, 6, seed=i) for i, key in enumerate(inputs)}
    outputs = {"out": np.ones((4, 6), np.float32)}
    return Row(name, lambda out, **k: function(*k.values(), out=out), arrays, outputs)


def returning(name: str, /, *, options: dict[str, Any], **arrays: Array) -> Row:
    function = getattr(_core, name)
    return Row(name, lambda **k: function(*k.values(), **options), arrays)


def step_adam(param: Array, grad: Array, exp_avg: Array, exp_avg_sq: Array) -> Array:
    optimizer = _core.FusedOptimizer()
    steps = np.array([[0.0, 1, 1, 1]])
    optimizer.add_group("adam", [param], [[exp_avg], [exp_avg_sq]], steps)
    values = {"lr": 0.1, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
    optimizer.step(np.array([[values.get(name, 0.0) for name in _core.HYPER_FIELDS]]), [[grad]])
    return np.array(param)


UNARY = [
    "abs", "neg", "sign", "square", "sqrt", "reciprocal", "exp", "log", "erf", "sigmoid", "tanh",
    "relu", "leaky_relu", "gelu", "softplus", "copy",
]  # fmt: skip
BINARY = ["add", "sub", "mul", "div", "pow", "maximum", "minimum", "above", "less", "equal", "join"]
BACKWARD = [
    "relu_backward", "sigmoid_backward", "tanh_backward", "softplus_backward",
]  # fmt: skip
REDUCTIONS = ["sum", "mean", "max", "min", "sum_squares"]

BATCH = normal(8, 3, 2, 2)
IMAGES = normal(2, 3, 4, 6, seed=9)
CHANNELS = {"gamma": normal(3, seed=1), "beta": normal(3, seed=2)}
RUNNING = {"running_mean": normal(3, seed=3), "running_var": positive(3, seed=4)}

CONVOLUTION: dict[str, Any] = {
    "stride": (2, 1), "padding": (1, 1, 0, 1), "dilation": (1, 1), "groups": 2
}  # fmt: skip

ROWS = [
    *[with_out(name, "x", draw=positive) for name in UNARY],
    *[with_out(name, "a", "b") for name in BINARY if name != "pow"],
    with_out("pow", "a", "b", draw=positive),
    *[with_out(name, "dy", "y") for name in BACKWARD],
    with_out("gelu_backward", "dy", "x"),
    *[returning(name, options={"axis": 0}, x=normal(5, 3)) for name in REDUCTIONS],
    *[returning(name, options={"axis": 1}, x=normal(5, 3)) for name in ("softmax", "log_softmax")],
    *[
        returning(name, options={}, dy=normal(5, 3), y=positive(5, 3, seed=1))
        for name in ("softmax_backward", "log_softmax_backward")
    ],
    Row(
        "softmax_cross_entropy",
        lambda logits: _core.softmax_cross_entropy(logits, np.array([0, 2, 1, 0, 2])),
        {"logits": normal(5, 3)},
        fixed_shape=True,
    ),
    Row(
        "batch_norm",
        lambda running_mean, running_var, **k: _core.batch_norm(
            k["x"], k["gamma"], k["beta"], running_mean, running_var, training=True
        )[0],
        {"x": BATCH, **CHANNELS},
        RUNNING,
    ),
    Row(
        "batch_norm evaluation",
        lambda **k: _core.batch_norm(
            k["x"], k["gamma"], k["beta"], k["running_mean"], k["running_var"], training=False
        )[0],
        {"x": BATCH, **CHANNELS, **RUNNING},
    ),
    Row(
        "batch_norm_backward",
        lambda dy, x, gamma: _core.batch_norm_backward(
            dy, x, gamma, _core.batch_norm(BATCH, gamma, None, None, None, training=True)[1]
        ),
        {"dy": normal(*BATCH.shape, seed=5), "x": BATCH, "gamma": positive(3)},
    ),
    Row(
        "layer_norm",
        lambda x, gamma, beta: _core.layer_norm(x, gamma, beta)[0],
        {"x": normal(8, 3), **CHANNELS},
    ),
    Row("max_pool2d", lambda x: _core.max_pool2d(x, 2)[0], {"x": IMAGES}),
    Row(
        "max_pool2d_backward",
        lambda dy, x: _core.max_pool2d_backward(dy, x, _core.max_pool2d(IMAGES, 3, 1, 1)[1]),
        {"dy": normal(*IMAGES.shape, seed=6), "x": IMAGES},
    ),
    Row("avg_pool2d", lambda x: _core.avg_pool2d(x, 3, 1, 1), {"x": IMAGES}),
    Row(
        "avg_pool2d_backward",
        lambda dy, x: _core.avg_pool2d_backward(dy, x, 3, 1, 1),
        {"dy": normal(*IMAGES.shape, seed=6), "x": IMAGES},
    ),
    Row("local_response_norm", lambda x: _core.local_response_norm(x, 2), {"x": IMAGES}),
    Row(
        "local_response_norm_backward",
        lambda dy, x: _core.local_response_norm_backward(dy, x, 2),
        {"dy": normal(*IMAGES.shape, seed=6), "x": IMAGES},
    ),
    Row("dropout", lambda x: _core.dropout(x, 0.5, seed=1), {"x": normal(5, 7)}),
    Row(
        "matmul",
        lambda a, b, bias, out: _core.matmul(a, b, bias=bias, out=out),
        {"a": normal(4, 5), "b": normal(5, 6), "bias": normal(6)},
        {"out": np.ones((4, 6), "f4")},
    ),
    Row(
        "conv2d",
        lambda x, weight, bias: _core.conv2d(x, weight, bias, **CONVOLUTION),
        {"x": normal(2, 4, 5, 6), "weight": normal(6, 2, 3, 2), "bias": normal(6)},
    ),
    Row(
        "conv2d_data_gradient",
        lambda dy, weight: _core.conv2d_data_gradient(dy, weight, (5, 6), **CONVOLUTION),
        {"dy": normal(2, 6, 3, 6), "weight": normal(6, 2, 3, 2)},
    ),
    Row(
        "conv2d_weight_gradient",
        lambda dy, x: _core.conv2d_weight_gradient(dy, x, (3, 2), **CONVOLUTION),
        {"dy": normal(2, 6, 3, 6), "x": normal(2, 4, 5, 6)},
    ),
    Row(
        "optimizer",
        step_adam,
        {"grad": normal(24)},
        {"param": normal(24), "exp_avg": np.zeros(24, "f4"), "exp_avg_sq": np.zeros(24, "f4")},
    ),
]


# --- classes of bad arrays ---------------------------------------------------------------------
def fortran(x: Array) -> Array:
    return np.asfortranarray(x)


def stepped(x: Array) -> Array:
    buffer = np.zeros([2 * n for n in x.shape], x.dtype)
    view = buffer[tuple(slice(None, None, 2) for _ in x.shape)]
    view[...] = x
    return view


def reversed_strides(x: Array) -> Array:
    flip = tuple(slice(None, None, -1) for _ in x.shape)
    return x[flip].copy()[flip]


def misaligned(x: Array) -> Array:
    raw = np.zeros(x.nbytes + 1, np.uint8)[1:]
    view = raw.view(x.dtype).reshape(x.shape)
    view[...] = x
    return view


def between_elements(x: Array) -> Array:
    """Strides that are no multiple of the element size."""
    record = np.zeros(x.shape, np.dtype([("value", x.dtype), ("odd", np.uint8)]))
    record["value"] = x
    return record["value"]


def read_only(x: Array) -> Array:
    copy = x.copy()
    copy.flags.writeable = False
    return copy


def broadcast(x: Array) -> Array:
    return np.broadcast_to(x[:1], x.shape)


LAYOUTS = [fortran, stepped, reversed_strides, misaligned, between_elements, read_only, broadcast]

CONTENTS: dict[str, Callable[[Array], Any]] = {
    "integer": lambda x: x.astype(np.int64),
    "bool": lambda x: x > 0,
    "float16": lambda x: x.astype(np.float16),
    "complex": lambda x: x.astype(np.complex64),
    "object": lambda x: x.astype(object),
    "big endian": lambda x: x.astype(">f4"),
    "structured": lambda x: np.zeros(x.shape, [("a", "f4"), ("b", "f4")]),
    "other float": lambda x: x.astype(np.float64),
    "list": lambda x: x.tolist(),
    "string": lambda x: "array",
    "bytes": lambda x: x.tobytes(),
    "wrong shape": lambda x: np.ones([n + 2 for n in x.shape], x.dtype),
    "too many dimensions": lambda x: np.ones((1,) * 9 + x.shape, x.dtype),
}
# Where a bad class is good: one operand alone may have any float type.
LONE = {"other float"}


def cases(*contents: str) -> list[Any]:
    """Rows × their arrays (× contents, but for shapes of rows that take any)."""
    return [
        pytest.param(row, name, *content, id="-".join([row.name, name, *content]))
        for row in ROWS
        for name in (*row.inputs, *row.outputs)
        for content in (([c] for c in contents) if contents else [[]])
        if content != ["wrong shape"] or len(row.inputs | row.outputs) > 1 or row.fixed_shape
    ]


def snapshot(arguments: dict[str, Any]) -> dict[str, bytes]:
    return {k: v.tobytes() for k, v in arguments.items() if isinstance(v, np.ndarray)}


def fresh(row: Row) -> dict[str, Any]:
    return {key: value.copy() for key, value in (row.inputs | row.outputs).items()}


def assert_equal(result: Any, expected: Any) -> None:
    """Arrays, or tuples of arrays, bit for bit."""
    results, expectations = ((x if isinstance(x, tuple) else (x,)) for x in (result, expected))
    for got, wanted in zip(results, expectations, strict=True):
        np.testing.assert_array_equal(got, wanted)


def assert_refused(row: Row, arguments: dict[str, Any], name: str) -> None:
    before = snapshot(arguments)
    with pytest.raises((ValueError, TypeError)) as error:
        row.call(**arguments)
    assert len(str(error.value)) > 15, "an error says what was expected and what came"
    assert snapshot(arguments) == before


@pytest.mark.parametrize(("row", "name"), cases())
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
def test_a_layout_is_right_or_refused(
    row: Row, name: str, layout: Callable[[Array], Array]
) -> None:
    arguments = fresh(row)
    arguments[name] = layout(arguments[name])
    clean = {key: np.ascontiguousarray(value) for key, value in arguments.items()}
    clean = {key: value.copy() for key, value in clean.items()}
    if name in row.outputs and not arguments[name].flags.writeable:
        assert_refused(row, arguments, name)
        return
    before = snapshot(arguments)
    try:
        result = row.call(**arguments)
    except (ValueError, TypeError) as error:
        assert name in str(error)
        assert snapshot(arguments) == before
        return
    expected = row.call(**clean)
    assert_equal(result, expected)
    assert snapshot(arguments) == snapshot(clean)


@pytest.mark.parametrize(("row", "name", "content"), cases(*CONTENTS))
def test_content_that_no_kernel_takes_is_refused(row: Row, name: str, content: str) -> None:
    arguments = fresh(row)
    arguments[name] = CONTENTS[content](arguments[name])
    if content in LONE and len(arguments) == 1:
        assert row.call(**arguments) is not None
        return
    assert_refused(row, arguments, name)


@pytest.mark.parametrize("row", [r for r in ROWS if r.outputs], ids=lambda r: r.name)
def test_an_output_that_overlaps_an_argument_is_right_or_refused(row: Row) -> None:
    for output in row.outputs:
        for other in (row.inputs | row.outputs).keys() - {output}:
            source = (row.inputs | row.outputs)[other]
            if source.shape != row.outputs[output].shape:
                continue
            for shift in (0, 1):
                arguments = fresh(row)
                buffer = np.zeros(source.size + 1, source.dtype)
                arguments[other] = buffer[: source.size].reshape(source.shape)
                arguments[other][...] = source
                arguments[output] = buffer[shift : shift + source.size].reshape(source.shape)
                before = snapshot(arguments)
                expected = row.call(**{key: value.copy() for key, value in arguments.items()})
                try:
                    result = row.call(**arguments)
                except ValueError:
                    assert snapshot(arguments) == before
                else:
                    assert shift == 0, "a partial overlap cannot be right"
                    np.testing.assert_array_equal(result, expected)
