"""Element-wise operations: bits depend on the values alone, whatever the layout, ISA or threads.

How accurate the values are is the matter of test_math.py.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg import _core
from thalweg.functional.shape import channels_last

Array = npt.NDArray[Any]

DTYPES = [np.float32, np.float64]
UNARY = [
    "abs", "neg", "sign", "square", "sqrt", "reciprocal", "exp", "log", "erf", "sigmoid", "tanh",
    "relu", "leaky_relu", "gelu", "softplus", "copy",
]  # fmt: skip
BINARY = ["add", "sub", "mul", "div", "pow", "maximum", "minimum", "above", "less", "equal", "join"]
GRADIENTS = {
    "relu_backward": "y", "leaky_relu_backward": "y", "sigmoid_backward": "y",
    "tanh_backward": "y", "softplus_backward": "y", "gelu_backward": "x",
}  # fmt: skip
TWO = [*BINARY, *GRADIENTS]
# Those that NumPy rounds correctly too, so that results are equal.
EXACT: dict[str, Callable[..., Array]] = {
    "abs": np.abs, "neg": np.negative, "sign": np.sign, "square": np.square, "sqrt": np.sqrt,
    "reciprocal": np.reciprocal, "copy": np.copy, "relu": lambda x: np.maximum(x, 0),
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide,
    "maximum": np.maximum, "minimum": np.minimum,
    "above": lambda a, b: np.heaviside(a - b, np.asarray(0.5, a.dtype)),
    "less": lambda a, b: (a < b).astype(a.dtype), "equal": lambda a, b: (a == b).astype(a.dtype),
    "join": lambda a, b: (a.view(f"u{a.itemsize}") | b.view(f"u{a.itemsize}")).view(a.dtype),
}  # fmt: skip


def normal(shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def positive(shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32, seed: int = 0) -> Array:
    return np.abs(normal(shape, dtype, seed)) + dtype(0.25)  # type: ignore[operator]


def operands(name: str, n: int, dtype: npt.DTypeLike) -> list[Array]:
    """Positive, so that no result is NaN: a NaN's sign and payload are left open."""
    return [positive((n,), dtype, seed) for seed in range(1 if name in UNARY else 2)]


def assert_same_bits(x: Array, y: Array) -> None:
    assert x.shape == y.shape and x.dtype == y.dtype
    np.testing.assert_array_equal(
        np.ascontiguousarray(x).view("u1"), np.ascontiguousarray(y).view("u1")
    )


# --- values -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", EXACT)
def test_arithmetic_equals_numpys(isa: str, name: str, dtype: type) -> None:
    x = [normal((3, 67), dtype, seed) for seed in range(1 if name in UNARY else 2)]
    x = [np.abs(v) for v in x] if name == "sqrt" else x
    assert_same_bits(getattr(_core, name)(*x), EXACT[name](*x))


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_equal_their_formulas(dtype: type) -> None:
    dy, y = normal((4, 9), dtype), positive((4, 9), dtype, 1) / 4
    negative = np.where(normal((4, 9), dtype, 2) > 0, y, -y)
    one = dtype(1)
    assert_same_bits(_core.relu_backward(dy, negative), np.where(negative > 0, dy, dtype(0)))
    leaky = np.where(negative > 0, dy, dy * dtype(0.2))
    assert_same_bits(_core.leaky_relu_backward(dy, negative, 0.2), leaky)
    assert_same_bits(_core.sigmoid_backward(dy, y), dy * ((one - y) * y))
    assert_same_bits(_core.tanh_backward(dy, y), dy * ((one - y) * (one + y)))
    tolerance = 8 * float(np.finfo(dtype).eps)
    np.testing.assert_allclose(_core.softplus_backward(dy, y), -np.expm1(-y) * dy, rtol=tolerance)


def test_leaky_relu_takes_its_slope_and_defaults_to_torchs() -> None:
    x = np.array([-2.0, 3.0])
    np.testing.assert_array_equal(_core.leaky_relu(x), [-0.02, 3])
    np.testing.assert_array_equal(_core.leaky_relu(x, 0.5), [-1, 3])
    np.testing.assert_array_equal(_core.leaky_relu(x, negative_slope=0), [0, 3])


# --- the same bits ----------------------------------------------------------------------------

SIZES = [*range(1, 20), 31, 32, 33, 47, 63, 64, 65, 127, 129, 1023]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", UNARY + TWO)
def test_bits_do_not_depend_on_isa_or_position(name: str, dtype: type) -> None:
    """Every size around a vector's: an element is computed alike in a vector and in a tail."""
    function, x = getattr(_core, name), operands(name, SIZES[-1], dtype)
    results = []
    for isa in _core.available_isas():
        _core.use_isa(isa)
        whole = function(*x)
        for n in SIZES:
            assert_same_bits(function(*(v[:n] for v in x)), whole[:n])
        results.append(whole)
    for other in results[1:]:
        assert_same_bits(other, results[0])


@pytest.mark.parametrize("name", ["tanh", "add", "gelu_backward"])
def test_bits_do_not_depend_on_threads(name: str) -> None:
    x = operands(name, 300_001, np.float32)
    results = []
    for threads in (1, 2, 3, 7):
        _core.set_num_threads(threads)
        results.append(getattr(_core, name)(*x))
    for other in results[1:]:
        assert_same_bits(other, results[0])


@st.composite
def layouts(draw: st.DrawFn, shape: tuple[int, ...]) -> Callable[[Array], Array]:
    """A way to store an array of this shape: axes in any order in memory, steps of either sign."""
    order = draw(st.permutations(range(len(shape))))
    steps = [draw(st.sampled_from([1, 1, 2, -1, -3])) for _ in shape]

    def store(x: Array) -> Array:
        spread = tuple(n * abs(step) for n, step in zip(x.shape, steps, strict=True))
        frame = np.full([spread[axis] for axis in order], 7, x.dtype)
        view = frame.transpose(np.argsort(order))[(*(slice(None, None, s) for s in steps), ...)]
        assert view.shape == x.shape
        view[...] = x
        return view

    return store


shapes = st.lists(st.sampled_from([0, 1, 1, 2, 3, 5, 17, 70]), max_size=4).map(tuple)


@given(st.data(), shapes, st.sampled_from(DTYPES), st.sampled_from(["copy", "exp", "square"]))
def test_any_layout_of_input_and_output(
    data: st.DataObject, shape: tuple[int, ...], dtype: type, name: str
) -> None:
    x = normal(shape, dtype)
    expected = getattr(_core, name)(x)
    stored, out = (data.draw(layouts(shape))(x) for _ in range(2))
    new = getattr(_core, name)(stored)
    kept = name != "copy" and channels_last(stored)
    assert channels_last(new) if kept else new.flags.c_contiguous
    assert_same_bits(new, expected)
    assert getattr(_core, name)(stored, out=out) is out
    assert_same_bits(out, expected)
    assert getattr(_core, name)(stored, out=stored) is stored
    assert_same_bits(stored, expected)


@given(st.data(), shapes, st.sampled_from(DTYPES), st.sampled_from(["add", "sub", "maximum"]))
def test_any_layout_and_broadcast_of_two_operands(
    data: st.DataObject, shape: tuple[int, ...], dtype: type, name: str
) -> None:
    """Each operand drops axes or keeps one element of them; NumPy says what must come out."""
    x = []
    for seed in range(2):
        kept = tuple(1 if data.draw(st.booleans()) and n else n for n in shape)
        kept = kept[data.draw(st.integers(0, len(kept))) :]
        x.append(data.draw(layouts(kept))(normal(kept, dtype, seed)))
    expected = EXACT[name](*x)
    assert_same_bits(getattr(_core, name)(*x), np.asarray(expected))
    out = data.draw(layouts(np.shape(expected)))(np.empty(np.shape(expected), dtype))
    getattr(_core, name)(*x, out=out)
    assert_same_bits(out, np.asarray(expected))


def test_nothing_outside_the_output_is_touched() -> None:
    frame = np.full((9, 40), 7.0)
    out = frame[1:8:2, 3:36:3]
    _core.add(np.ones(out.shape), np.ones(out.shape[-1]), out=out)
    assert np.all(out == 2)
    frame[1:8:2, 3:36:3] = 7
    assert np.all(frame == 7)


# --- numbers, shapes, aliasing ----------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["add", "sub", "div", "pow", "maximum"])
def test_a_number_takes_the_arrays_dtype(name: str, dtype: type) -> None:
    function, x = getattr(_core, name), positive((5, 7), dtype)
    for number in (3, 0.1, -2.5, np.float64(0.1)):
        full = np.full_like(x, number)
        np.testing.assert_array_equal(function(x, number), function(x, full))
        np.testing.assert_array_equal(function(number, x), function(full, x))


def test_arrays_without_dimensions_and_without_elements() -> None:
    zero_d = np.array(2.0)
    assert _core.exp(zero_d).shape == () and _core.add(zero_d, zero_d) == 4
    assert _core.add(np.ones((3, 1)), zero_d).shape == (3, 1)
    assert _core.add(np.ones((0, 4)), np.ones(4)).shape == (0, 4)
    assert _core.add(np.ones((0, 1)), np.ones((1, 5))).shape == (0, 5)
    assert _core.relu(np.ones((3, 0, 2))).shape == (3, 0, 2)


def test_an_output_may_be_an_input() -> None:
    a, b = normal((33, 5)), normal((33, 5), seed=1)
    expected = a + b
    for target in (0, 1):
        x = [a.copy(), b.copy()]
        _core.add(*x, out=x[target])
        assert_same_bits(x[target], expected)
    _core.mul(a, a, out=a)
    row = normal((5,), seed=2)
    expected = b - row
    _core.sub(b, row, out=b)
    assert_same_bits(b, expected)


MEMORY = np.arange(40, dtype=np.float32)
SQUARE = np.ones((4, 4), np.float32)
READ_ONLY = np.ones(3)
READ_ONLY.flags.writeable = False

# What is called, the error, and what its message says.
ERRORS: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: _core.add(1.0, 2), TypeError, "add: a and b are both numbers"),
    (lambda: _core.add(np.ones(3), np.ones(3, "f4")), TypeError, "b is float32 but a is float64"),
    (lambda: _core.exp(np.ones(3, int)), TypeError, "x must be float32 or float64, got int64"),
    (lambda: _core.add(np.ones(3), np.ones(3, int)), TypeError, "b must be float32 or float64"),
    (lambda: _core.exp(2.0), TypeError, "exp: x must be an array, got float"),
    (lambda: _core.exp([1.0]), TypeError, "exp: x must be an array, got list"),
    (lambda: _core.add(np.ones((2, 3)), np.ones((2,))), ValueError, r"a is \(2, 3\), b is \(2,\)"),
    (lambda: _core.relu_backward(np.ones((2, 3)), np.ones(3)), ValueError, "y has shape"),
    (lambda: _core.gelu_backward(np.ones(3), np.ones(3, "f4")), TypeError, "x is float32 but dy"),
    (lambda: _core.exp(np.ones(3), out=np.ones(4)), ValueError, r"out has shape \(4,\), expected"),
    (lambda: _core.exp(np.ones(3), out=np.ones(3, "f4")), TypeError, "out is float32 but x"),
    (lambda: _core.exp(np.ones(3), out=READ_ONLY), ValueError, "out is read-only"),
    (lambda: _core.add(2, np.ones(3), out=np.ones(3, "f4")), TypeError, "out is float32 but b is"),
    (lambda: _core.exp(MEMORY[:8], out=MEMORY[1:9]), ValueError, "out overlaps x"),
    (lambda: _core.add(SQUARE, SQUARE[0], out=SQUARE), ValueError, "out overlaps b"),
    (lambda: _core.exp(SQUARE, out=SQUARE.T), ValueError, "out overlaps x"),
    (lambda: _core.exp(MEMORY[:8], out=MEMORY[7::-1]), ValueError, "out overlaps x"),
    (
        lambda: _core.leaky_relu(np.ones(3), -0.1),
        ValueError,
        "negative_slope must be finite and at",
    ),
    (lambda: _core.leaky_relu(np.ones(3), np.inf), ValueError, "negative_slope must be finite"),
    (lambda: _core.leaky_relu_backward(np.ones(3), np.ones(3), np.nan), ValueError, "got nan"),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[row[2] for row in ERRORS])
def test_errors_name_the_argument_and_nothing_is_written(
    call: Callable[[], object], error: type[Exception], message: str
) -> None:
    memory, square = MEMORY.copy(), SQUARE.copy()
    with pytest.raises(error, match=message):
        call()
    assert_same_bits(MEMORY, memory)
    assert_same_bits(SQUARE, square)


def test_eight_threads_at_once() -> None:
    x = normal((60_000,))
    expected = _core.tanh(x)

    def work(_: int) -> None:
        own = x.copy()
        for _ in range(10):
            assert_same_bits(_core.tanh(x), expected)
            _core.tanh(own, out=own)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))


def test_offsets_beyond_two_to_the_31() -> None:
    """A view with rows 2^33 bytes apart: only the pages that are touched take memory."""
    try:
        memory = np.zeros(2**31 + 8, np.float32)
    except MemoryError:
        pytest.skip("no 8 GiB of address space")
    rows = np.lib.stride_tricks.as_strided(memory, (2, 5), (2**33, 4))
    rows[...] = normal((2, 5))
    np.testing.assert_array_equal(_core.neg(rows), -rows)
    _core.square(rows, out=rows)
    np.testing.assert_array_equal(memory[2**31 : 2**31 + 5], normal((2, 5))[1] ** 2)


@pytest.mark.parametrize("number", [2, 2.5, True, np.float32(2), np.float64(2.5), np.int64(2)])
def test_a_number_takes_the_array_s_dtype(number: Any) -> None:
    x = np.arange(3, dtype=np.float32)
    result = _core.mul(x, number)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, x * np.float32(number))


@pytest.mark.parametrize("number", [2j, np.complex64(1), np.bool_(True), None, "2"])
def test_what_is_no_real_number_is_refused(number: Any) -> None:
    with pytest.raises(TypeError, match="mul: b "):
        _core.mul(np.ones(3, np.float32), number)
