"""Products. Integer-valued operands make every order of summation exact, so most tests are exact."""

from __future__ import annotations

import itertools
import resource
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from thalweg import _core

Array = npt.NDArray[Any]

DTYPES = [np.float32, np.float64]
ACTIVATIONS = ["relu", "leaky_relu", "sigmoid", "tanh", "gelu", "softplus"]
# Elements of K in a block at most; the sum of a block is one chain of multiply-adds.
DEPTH = {np.float32: 384, np.float64: 192}

# Ways to lay a matrix out; each returns an equal matrix.
LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "rows": lambda x: x,
    "columns": lambda x: np.asfortranarray(x),
    "stepped": lambda x: _inside(x, 2, 3),
    "padded": lambda x: _inside(x, 1, 1, padding=5),
    "aliasing": lambda x: _inside(x, 1, 1, padding=-x.shape[-1] % 1024),
    "reversed": lambda x: x[..., ::-1, ::-1].copy()[..., ::-1, ::-1],
    "reversed columns": lambda x: x[..., ::-1].copy(order="F")[..., ::-1],
}


def _inside(x: Array, row_step: int, column_step: int, padding: int = 0) -> Array:
    rows, columns = x.shape[-2:]
    frame = np.full((*x.shape[:-2], rows * row_step, columns * column_step + padding), 7, x.dtype)
    view = frame[..., : rows * row_step : row_step, : columns * column_step : column_step]
    view[...] = x
    return view


def integers(rng: np.random.Generator, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    return rng.integers(-8, 9, shape).astype(dtype)


def bits(x: Array) -> Array:
    return np.ascontiguousarray(x).view(np.uint32 if x.dtype == np.float32 else np.uint64)


def assert_same_bits(x: Array, y: Array) -> None:
    np.testing.assert_array_equal(bits(x), bits(y))


def assert_exact(a: Array, b: Array) -> None:
    np.testing.assert_array_equal(
        _core.matmul(a, b), np.matmul(a.astype(np.float64), b.astype(np.float64))
    )


# --- values -----------------------------------------------------------------------------------


@given(
    m=st.integers(1, 67),
    n=st.integers(1, 67),
    k=st.integers(1, 67),
    layout_a=st.sampled_from(sorted(LAYOUTS)),
    layout_b=st.sampled_from(sorted(LAYOUTS)),
    dtype=st.sampled_from(DTYPES),
    isa=st.sampled_from(_core.available_isas()),
)
def test_integer_products_are_exact(
    m: int, n: int, k: int, layout_a: str, layout_b: str, dtype: type, isa: str
) -> None:
    _core.use_isa(isa)
    rng = np.random.default_rng(m * 10007 + n * 101 + k)
    a, b = integers(rng, (m, k), dtype), integers(rng, (k, n), dtype)
    assert_exact(LAYOUTS[layout_a](a), LAYOUTS[layout_b](b))


# Around tiles (4, 6, 14 rows; 4 … 32 columns), blocks of K (192, 384), of rows and of columns, and
# on both sides of the decision to pack an operand.
TILES = [1, 3, 4, 5, 6, 7, 8, 9, 13, 14, 15, 16, 17, 28, 29, 31, 32, 33, 63, 64, 65]
SHAPES = [
    *((m, 33, 20) for m in [*TILES, 181, 182, 183, 363, 365]),
    *((15, n, 20) for n in TILES),
    *((15, 33, k) for k in [*TILES, 191, 192, 193, 383, 384, 385, 576, 577, 767, 768, 769]),
    (3, 3071, 5), (3, 3073, 5), (57, 3073, 100), (57, 700, 385), (85, 800, 384), (200, 100, 500),
    (400, 2, 30), (2, 400, 30), (1, 500, 400), (500, 1, 400), (1, 1, 1000), (300, 300, 1),
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_are_exact_around_every_boundary(
    isa: str, shape: tuple[int, int, int], dtype: type
) -> None:
    m, n, k = shape
    rng = np.random.default_rng(m + n + k)
    a, b = integers(rng, (m, k), dtype), integers(rng, (k, n), dtype)
    for layout_a, layout_b in [("rows", "rows"), ("columns", "columns"), ("aliasing", "reversed")]:
        assert_exact(LAYOUTS[layout_a](a), LAYOUTS[layout_b](b))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout_b", LAYOUTS)
@pytest.mark.parametrize("layout_a", LAYOUTS)
def test_layouts_do_not_change_a_bit(layout_a: str, layout_b: str, dtype: type) -> None:
    rng = np.random.default_rng(1)
    for m, n, k in [(70, 90, 50), (60, 720, 400), (5, 3, 17)]:
        a = rng.standard_normal((m, k)).astype(dtype)
        b = rng.standard_normal((k, n)).astype(dtype)
        assert_same_bits(_core.matmul(LAYOUTS[layout_a](a), LAYOUTS[layout_b](b)), _core.matmul(a, b))


BATCHES = [
    ((7, 4, 3), (7, 3, 5)),
    ((7, 4, 3), (3, 5)),
    ((4, 3), (7, 3, 5)),
    ((2, 1, 4, 3), (5, 3, 6)),
    ((2, 5, 4, 3), (1, 5, 3, 6)),
    ((1, 4, 3), (9, 3, 6)),
    ((3, 1, 2, 1, 4, 3), (1, 5, 1, 2, 3, 2)),
    ((300, 8, 8), (300, 8, 8)),
    ((3, 200, 90), (3, 90, 130)),
    ((3,), (3,)),
    ((3,), (3, 5)),
    ((4, 3), (3,)),
    ((3,), (7, 3, 5)),
    ((7, 4, 3), (3,)),
    ((0, 4, 3), (3, 5)),
    ((0, 4, 3), (1, 3, 5)),
    ((2, 0, 3), (3, 5)),
    ((2, 4, 0), (0, 5)),
    ((2, 4, 3), (3, 0)),
    ((0,), (0,)),
    ((0, 0), (0, 0)),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("a_shape", "b_shape"), BATCHES)
def test_shapes_are_numpys(
    a_shape: tuple[int, ...], b_shape: tuple[int, ...], dtype: type
) -> None:
    rng = np.random.default_rng(2)
    a, b = integers(rng, a_shape, dtype), integers(rng, b_shape, dtype)
    expected = np.asarray(np.matmul(a, b))
    result = _core.matmul(a, b)
    assert isinstance(result, np.ndarray)
    assert result.dtype == dtype
    assert result.shape == expected.shape
    np.testing.assert_array_equal(result, expected)


def test_broadcast_views_are_read_in_place() -> None:
    rng = np.random.default_rng(3)
    row, column = integers(rng, (1, 30), np.float32), integers(rng, (30, 1), np.float32)
    assert_exact(np.broadcast_to(row, (50, 30)), np.broadcast_to(column, (30, 90)))
    matrix = integers(rng, (30, 20), np.float32)
    assert_exact(np.broadcast_to(matrix.T, (6, 20, 30)), np.broadcast_to(matrix, (6, 30, 20)))
    assert_exact(np.broadcast_to(np.float32(3), (40, 200)), np.broadcast_to(np.float32(2), (200, 70)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_result_depends_on_its_row_and_its_column_alone(isa: str, dtype: type) -> None:
    rng = np.random.default_rng(4)
    for m, n, k in [(31, 70, 50), (70, 710, 400), (5, 3, 1000)]:
        a = rng.standard_normal((m, k)).astype(dtype)
        b = rng.standard_normal((k, n)).astype(dtype)
        whole = _core.matmul(a, b)
        for i, j in itertools.product([0, m // 2, m - 1], [0, n // 3, n - 1]):
            assert_same_bits(whole[i, j], _core.matmul(a[i], b[:, j]))
        assert_same_bits(whole[1:4], _core.matmul(a[1:4], b))
        assert_same_bits(whole[:, 1:3], _core.matmul(a, b[:, 1:3]))
        assert_same_bits(whole.T.copy(), _core.matmul(b.T, a.T))


@pytest.mark.parametrize("dtype", DTYPES)
def test_blocks_of_k_are_added_in_order(dtype: type) -> None:
    rng = np.random.default_rng(5)
    depth = DEPTH[dtype]
    a = rng.standard_normal((20, 3 * depth)).astype(dtype)
    b = rng.standard_normal((3 * depth, 40)).astype(dtype)
    total = _core.matmul(a[:, :depth], b[:depth])
    for start in (depth, 2 * depth):
        part = slice(start, start + depth)
        total = _core.add(total, _core.matmul(a[:, part], b[part]))
    assert_same_bits(_core.matmul(a, b), total)


# --- promises ---------------------------------------------------------------------------------

PROMISED = [(3, 5, 7), (64, 64, 64), (100, 10, 784), (130, 700, 400), (1, 300, 500), (300, 1, 500)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", PROMISED, ids=str)
def test_threads_do_not_change_a_bit(shape: tuple[int, int, int], dtype: type) -> None:
    m, n, k = shape
    rng = np.random.default_rng(6)
    a = rng.standard_normal((9, m, k)).astype(dtype)
    b = rng.standard_normal((9, k, n)).astype(dtype)
    results = []
    for threads in (1, 2, 3, 5):
        _core.set_num_threads(threads)
        results.append((_core.matmul(a, b), _core.matmul(a[0], b[0])))
    for batch, single in results[1:]:
        assert_same_bits(batch, results[0][0])
        assert_same_bits(single, results[0][1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", PROMISED, ids=str)
def test_avx2_and_avx512_agree_bit_for_bit(shape: tuple[int, int, int], dtype: type) -> None:
    if "avx512" not in _core.available_isas():
        pytest.skip("this CPU has no AVX-512")
    m, n, k = shape
    rng = np.random.default_rng(7)
    a = rng.standard_normal((m, k)).astype(dtype)
    b = rng.standard_normal((k, n)).astype(dtype)
    results = []
    for isa in ("avx2", "avx512"):
        _core.use_isa(isa)
        results.append(_core.matmul(a, b))
    assert_same_bits(*results)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [1, 10, 384, 385, 3000])
def test_error_is_within_the_componentwise_bound(isa: str, k: int, dtype: type) -> None:
    """|C - AB| <= n u |A||B| with n roundings on the longest path, 2 per term without FMA."""
    rng = np.random.default_rng(8)
    a = rng.standard_normal((12, k)).astype(dtype)
    b = rng.standard_normal((k, 18)).astype(dtype)
    depth = -(-k // -(-k // DEPTH[dtype]))
    roundings = (2 if isa == "baseline" else 1) * depth + -(-k // depth)
    exact = np.einsum("ik,kj->ij", a.astype(np.longdouble), b.astype(np.longdouble))
    magnitude = np.einsum("ik,kj->ij", np.abs(a, dtype=np.longdouble), np.abs(b, dtype=np.longdouble))
    unit = np.finfo(dtype).eps / 2
    assert np.all(np.abs(_core.matmul(a, b) - exact) <= roundings * unit * magnitude)


@pytest.mark.parametrize("dtype", DTYPES)
def test_special_values_propagate(isa: str, dtype: type) -> None:
    a, b = np.ones((20, 40), dtype), np.ones((40, 50), dtype)
    a[3, 7], a[5, 2], b[39, 49], b[2, 4] = np.nan, np.inf, -np.inf, 0
    result = _core.matmul(a, b)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(result, np.matmul(a, b))
    tiny = np.finfo(dtype).smallest_subnormal
    assert_same_bits(_core.matmul(np.full((2, 1), tiny), np.ones((1, 3), dtype)), np.full((2, 3), tiny))
    assert np.all(np.isinf(_core.matmul(np.full((2, 9), np.finfo(dtype).max), np.ones((9, 3), dtype))))


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_empty_sum_is_zero(isa: str, dtype: type) -> None:
    a, b = np.empty((4, 0), dtype), np.empty((0, 37), dtype)
    bias = np.arange(37, dtype=dtype) - 9
    out = np.full((4, 37), np.nan, dtype)
    _core.matmul(a, b, out=out)
    assert_same_bits(out, np.zeros_like(out))
    _core.matmul(a, b, out=out, bias=bias, activation="relu")
    np.testing.assert_array_equal(out, np.broadcast_to(np.maximum(bias, 0), out.shape))
    _core.matmul(a, b, out=out, accumulate=True)
    np.testing.assert_array_equal(out, np.broadcast_to(np.maximum(bias, 0), out.shape))


# --- out, accumulate, bias, activation ----------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_out_of_any_layout_is_written_in_place(isa: str, layout: str, dtype: type) -> None:
    rng = np.random.default_rng(9)
    a, b = integers(rng, (3, 40, 21), dtype), integers(rng, (3, 21, 70), dtype)
    out = LAYOUTS[layout](np.full((3, 40, 70), np.nan, dtype))
    frame = out.base if out.base is not None else out
    outside = np.count_nonzero(frame == 7)
    assert _core.matmul(a, b, out=out) is out
    np.testing.assert_array_equal(out, np.matmul(a, b))
    _core.matmul(a, b, out=out, accumulate=True)
    np.testing.assert_array_equal(out, 2 * np.matmul(a, b))
    assert np.count_nonzero(frame == 7) - np.count_nonzero(out == 7) == outside


@pytest.mark.parametrize(("a_shape", "b_shape"), BATCHES)
def test_out_has_the_shape_of_the_result(a_shape: tuple[int, ...], b_shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(10)
    a, b = integers(rng, a_shape, np.float32), integers(rng, b_shape, np.float32)
    expected = np.asarray(np.matmul(a, b))
    out = np.full(expected.shape, np.nan, np.float32)
    assert _core.matmul(a, b, out=out) is out
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 9, 30), (70, 100, 64), (15, 33, 384)], ids=str)
def test_accumulating_equals_adding_the_product(
    isa: str, shape: tuple[int, int, int], dtype: type
) -> None:
    m, n, k = shape
    rng = np.random.default_rng(11)
    k = min(k, DEPTH[dtype])
    a = rng.standard_normal((m, k)).astype(dtype)
    b = rng.standard_normal((k, n)).astype(dtype)
    out = rng.standard_normal((m, n)).astype(dtype)
    expected = _core.add(out, _core.matmul(a, b))
    _core.matmul(a, b, out=out, accumulate=True)
    assert_same_bits(out, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", [None, *ACTIVATIONS])
def test_epilogues_equal_the_separate_operations(
    isa: str, activation: str | None, dtype: type
) -> None:
    rng = np.random.default_rng(12)
    separate = getattr(_core, activation) if activation else _core.copy
    for m, n, k in [(3, 5, 7), (40, 70, 30), (61, 130, 900)]:
        a = rng.standard_normal((2, m, k)).astype(dtype)
        b = rng.standard_normal((k, n)).astype(dtype)
        bias = rng.standard_normal(n).astype(dtype)
        product = _core.matmul(a, b)
        assert_same_bits(_core.matmul(a, b, activation=activation), separate(product))
        expected = separate(_core.add(product, bias))
        assert_same_bits(_core.matmul(a, b, bias=bias, activation=activation), expected)
        for strided in (np.repeat(bias, 3)[::3], bias[::-1].copy()[::-1]):
            assert_same_bits(_core.matmul(a, b, bias=strided, activation=activation), expected)
        out = np.zeros_like(product)
        _core.matmul(a, b, out=out, accumulate=True, bias=bias, activation=activation)
        np.testing.assert_array_equal(out, expected)


def test_one_bias_serves_all_columns_through_a_zero_stride() -> None:
    a, b = np.ones((3, 4), np.float32), np.ones((4, 50), np.float32)
    bias = np.broadcast_to(np.float32(2), 50)
    np.testing.assert_array_equal(_core.matmul(a, b, bias=bias), np.full((3, 50), 6))
    np.testing.assert_array_equal(_core.matmul(a[0], b, bias=bias), np.full(50, 6))


# --- precision --------------------------------------------------------------------------------


def test_precision_is_a_setting_and_an_argument() -> None:
    assert _core.get_matmul_precision() == "highest"
    a = np.eye(3, dtype=np.float32)
    try:
        for name in ("strict", "highest", "high", "medium"):
            _core.set_matmul_precision(name)
            assert _core.get_matmul_precision() == name
            np.testing.assert_array_equal(_core.matmul(a, a, precision=name), a)
        with pytest.raises(ValueError, match="set_matmul_precision: precision must be 'strict'"):
            _core.set_matmul_precision("low")
        assert _core.get_matmul_precision() == "medium"
    finally:
        _core.set_matmul_precision("highest")


# --- errors -----------------------------------------------------------------------------------

F32 = np.ones((4, 4), np.float32)


def _read_only(x: Array) -> Array:
    x.flags.writeable = False
    return x


ERRORS: list[tuple[str, Callable[[], Any], type[Exception], str]] = [
    ("inner", lambda: _core.matmul(np.ones((4, 3)), np.ones((5, 2))), ValueError,
     r"matmul: inner dimensions differ, a is \(4, 3\), b is \(5, 2\)"),
    ("inner 1-D", lambda: _core.matmul(np.ones(3), np.ones(4)), ValueError,
     r"matmul: inner dimensions differ, a is \(3,\), b is \(4,\)"),
    ("batch", lambda: _core.matmul(np.ones((2, 4, 3)), np.ones((3, 3, 2))), ValueError,
     r"matmul: batch dimensions do not broadcast, a is \(2, 4, 3\), b is \(3, 3, 2\)"),
    ("scalar", lambda: _core.matmul(np.ones((), np.float32), F32), ValueError,
     "matmul: a must have at least one dimension, got a scalar; use mul"),
    ("list", lambda: _core.matmul([[1.0]], F32), TypeError, "matmul: a must be an array, got list"),
    ("integers", lambda: _core.matmul(F32.astype(np.int32), F32), TypeError,
     "matmul: a must be float32 or float64, got int32"),
    ("complex", lambda: _core.matmul(F32, F32.astype(np.complex64)), TypeError,
     "matmul: b has dtype complex64"),
    ("mixed", lambda: _core.matmul(F32, F32.astype(np.float64)), TypeError,
     "matmul: b is float64 but a is float32; convert one of them"),
    ("out dtype", lambda: _core.matmul(F32, F32, out=np.empty((4, 4))), TypeError,
     "matmul: out is float64 but a is float32"),
    ("out shape", lambda: _core.matmul(F32, F32, out=np.empty((4, 5), np.float32)), ValueError,
     r"matmul: out has shape \(4, 5\), expected \(4, 4\)"),
    ("out rank", lambda: _core.matmul(F32, F32, out=np.empty((1, 4, 4), np.float32)), ValueError,
     r"matmul: out has shape \(1, 4, 4\), expected \(4, 4\)"),
    ("out read-only", lambda: _core.matmul(F32, F32, out=_read_only(F32.copy())), ValueError,
     "matmul: out is read-only"),
    ("out is a list", lambda: _core.matmul(F32, F32, out=[0.0]), TypeError,
     "matmul: out must be an array, got list"),
    ("out overlaps itself", lambda: _core.matmul(
        F32, F32, out=np.lib.stride_tricks.as_strided(F32.copy(), (4, 4), (4, 4))), ValueError,
     "matmul: out overlaps itself"),
    ("accumulate", lambda: _core.matmul(F32, F32, accumulate=True), ValueError,
     "matmul: accumulate=True adds to out, but out is None"),
    ("bias length", lambda: _core.matmul(F32, F32, bias=np.ones(5, np.float32)), ValueError,
     r"matmul: bias must have shape \(4,\), got \(5,\)"),
    ("bias rank", lambda: _core.matmul(F32, F32, bias=np.ones((1, 4), np.float32)), ValueError,
     r"matmul: bias must have shape \(4,\), got \(1, 4\)"),
    ("bias dtype", lambda: _core.matmul(F32, F32, bias=np.ones(4)), TypeError,
     "matmul: bias is float64 but a is float32"),
    ("bias of a vector", lambda: _core.matmul(F32, F32[0], bias=np.ones(1, np.float32)), ValueError,
     r"matmul: bias is added to columns, but b is \(4,\) and has none"),
    ("activation", lambda: _core.matmul(F32, F32, activation="swish"), ValueError,
     "matmul: activation must be None or one of 'identity', 'relu', .*, got 'swish'"),
    ("activation type", lambda: _core.matmul(F32, F32, activation=1), TypeError,
     "matmul: activation must be a string, got int"),
    ("precision", lambda: _core.matmul(F32, F32, precision="low"), ValueError,
     "matmul: precision must be 'strict', 'highest', 'high' or 'medium', got 'low'"),
    ("rank", lambda: _core.matmul(np.ones((1,) * 9, np.float32), F32), ValueError,
     "matmul: a has 9 dimensions, at most 8"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "error", "message"), [row[1:] for row in ERRORS], ids=[row[0] for row in ERRORS]
)
def test_errors_say_what_was_expected(
    call: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()


def _overlapping(kind: str) -> tuple[Array, Array, Array, Array | None, str]:
    memory = np.arange(200, dtype=np.float32)
    x, other = memory[:16].reshape(4, 4), np.ones((4, 4), np.float32)
    if kind == "out is a":
        return x, other, x, None, "a"
    if kind == "out is b":
        return other, x, x, None, "b"
    if kind == "all are one":
        return x, x, x, None, "a"
    if kind == "by one element":
        return x, other, memory[15:31].reshape(4, 4), None, "a"
    if kind == "reversed":
        return other, x[::-1, ::-1], memory[:16].reshape(4, 4), None, "b"
    return x, other, memory[32:48].reshape(4, 4), memory[44:48], "bias"


@pytest.mark.parametrize(
    "kind", ["out is a", "out is b", "all are one", "by one element", "reversed", "bias"]
)
def test_an_output_that_is_an_input_is_refused_untouched(kind: str) -> None:
    a, b, out, bias, name = _overlapping(kind)
    before = [x.copy() for x in (a, b, out)]
    with pytest.raises(ValueError, match=f"matmul: out shares memory with {name}, .*pass another array"):
        _core.matmul(a, b, out=out, bias=bias)
    for x, y in zip((a, b, out), before, strict=True):
        assert_same_bits(x, y)


OUT_ERRORS: list[dict[str, Any]] = [
    {"bias": np.ones(5, np.float32)},
    {"bias": np.ones(4)},
    {"activation": "swish"},
    {"precision": "low"},
    {"accumulate": True, "activation": "swish"},
]


@pytest.mark.parametrize("arguments", OUT_ERRORS, ids=str)
def test_nothing_is_written_after_an_error(arguments: dict[str, Any]) -> None:
    out = np.full((4, 4), 5, np.float32)
    with pytest.raises((ValueError, TypeError)):
        _core.matmul(F32, F32, out=out, **arguments)
    np.testing.assert_array_equal(out, np.full((4, 4), 5))


# --- process ----------------------------------------------------------------------------------


def test_eight_threads_call_at_once() -> None:
    rng = np.random.default_rng(13)
    shapes = [(70, 90, 50), (8, 8, 8), (150, 400, 700), (3, 500, 200)]
    cases = [(integers(rng, (m, k), np.float32), integers(rng, (k, n), np.float32)) for m, n, k in shapes]
    expected = [np.matmul(a, b) for a, b in cases]

    def work(seed: int) -> None:
        for i in np.random.default_rng(seed).integers(0, len(cases), 40):
            np.testing.assert_array_equal(_core.matmul(*cases[i]), expected[i])

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(work, seed) for seed in range(8)]:
            future.result()


GUARD_SWEEP = """
import itertools, sys
import numpy as np
from guard_pages import guarded
from thalweg import _core

_core.use_isa(sys.argv[1])
extents = [1, 2, 5, 7, 13, 15, 31, 33, 65]
shapes = list(itertools.product(extents, extents, [1, 3, 17])) + [(60, 700, 390), (3, 2, 800), (1, 300, 1)]
for dtype, at_end in itertools.product([np.float32, np.float64], [True, False]):
    for m, n, k in shapes:
        out = guarded((m, n), dtype, at_end=at_end)
        bias = guarded((n,), dtype, at_end=at_end)
        row_a, row_b = (guarded(s, dtype, at_end=at_end) for s in [(m, k), (k, n)])
        column_a, column_b = (guarded(s, dtype, at_end=at_end).T for s in [(k, m), (n, k)])
        for a, b in itertools.product([row_a, column_a], [row_b, column_b]):
            a[...] = b[...] = bias[...] = 1
            _core.matmul(a, b, out=out, bias=bias)
            assert (out == k + 1).all(), (m, n, k)
        _core.matmul(row_a[::-1, ::-1], row_b[::-1, ::-1], out=out[:, ::-1], accumulate=True)
        assert (out == 2 * k + 1).all(), (m, n, k)
"""


def test_no_byte_outside_the_arrays_is_touched(isa: str) -> None:
    subprocess.run([sys.executable, "-c", GUARD_SWEEP, isa], cwd=Path(__file__).parent, check=True)


OUT_OF_MEMORY = """
import resource
import numpy as np
from thalweg import _core

_core.set_num_threads(1)
a, b = np.ones((100, 384), np.float32), np.ones((384, 3000), np.float32)
out = np.full((100, 3000), 5, np.float32)
_core.matmul(a[:2, :2], b[:2, :2])
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + (1 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
try:
    _core.matmul(a, b, out=out, accumulate=True)
except MemoryError:
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
else:
    raise SystemExit("no MemoryError")
assert (out == 5).all()
_core.matmul(a, b, out=out, accumulate=True)
assert (out == 389).all()
"""


@pytest.mark.skipif(
    resource.getrlimit(resource.RLIMIT_AS)[1] != resource.RLIM_INFINITY,
    reason="the address space of this process is limited already",
)
def test_out_of_memory_leaves_everything_as_it_was() -> None:
    subprocess.run([sys.executable, "-c", OUT_OF_MEMORY], check=True)
