"""Products. Integer-valued operands make every order of summation exact."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg import _core

Array = npt.NDArray[Any]
DType = type[np.float32] | type[np.float64]

DTYPES: list[DType] = [np.float32, np.float64]
ACTIVATIONS = ["relu", "leaky_relu", "sigmoid", "tanh", "gelu", "softplus"]
# Elements of K in a block at most; the sum of a block is one chain of multiply-adds.
DEPTH: dict[DType, int] = {np.float32: 384, np.float64: 192}

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
    m: int, n: int, k: int, layout_a: str, layout_b: str, dtype: DType, isa: str
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
    # Strips of up to 8 rows, and products cut along K: inner products by lanes, others by blocks.
    *((m, n, 40) for m in [1, 2, 3, 8, 9] for n in [15, 16, 17, 33]),
    *((1, 1, k) for k in [1535, 1537, 3072, 6143, 6144, 6145, 20000]),
    (4, 3, 6145), (100, 4, 400), (9, 64, 1000), (30, 128, 769), (30, 129, 769), (2, 33, 1000),
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_are_exact_around_every_boundary(
    isa: str, shape: tuple[int, int, int], dtype: DType
) -> None:
    m, n, k = shape
    rng = np.random.default_rng(m + n + k)
    a, b = integers(rng, (m, k), dtype), integers(rng, (k, n), dtype)
    for layout_a, layout_b in [("rows", "rows"), ("columns", "columns"), ("aliasing", "reversed")]:
        assert_exact(LAYOUTS[layout_a](a), LAYOUTS[layout_b](b))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout_b", LAYOUTS)
@pytest.mark.parametrize("layout_a", LAYOUTS)
def test_layouts_do_not_change_a_bit(layout_a: str, layout_b: str, dtype: DType) -> None:
    rng = np.random.default_rng(1)
    for m, n, k in [
        (70, 90, 50), (60, 720, 400), (5, 3, 17), (1, 1, 5000), (300, 3, 400), (1100, 1, 70),
        (40, 1, 4500), (1, 1100, 800),
    ]:  # fmt: skip
        a = rng.standard_normal((m, k)).astype(dtype)
        b = rng.standard_normal((k, n)).astype(dtype)
        assert_same_bits(
            _core.matmul(LAYOUTS[layout_a](a), LAYOUTS[layout_b](b)), _core.matmul(a, b)
        )


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
    a_shape: tuple[int, ...], b_shape: tuple[int, ...], dtype: DType
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
    assert_exact(
        np.broadcast_to(np.float32(3), (40, 200)), np.broadcast_to(np.float32(2), (200, 70))
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_result_depends_on_its_row_and_its_column_alone(isa: str, dtype: DType) -> None:
    rng = np.random.default_rng(4)
    for m, n, k in [(31, 70, 50), (70, 710, 400), (5, 3, 1000)]:
        a = rng.standard_normal((m, k)).astype(dtype)
        b = rng.standard_normal((k, n)).astype(dtype)
        whole = _core.matmul(a, b)
        for i, j in itertools.product([0, m // 2, m - 1], [0, n // 3, n - 2]):
            assert_same_bits(whole[i, j : j + 2], _core.matmul(a[i], b[:, j : j + 2]))
        assert_same_bits(whole[1:4], _core.matmul(a[1:4], b))
        assert_same_bits(whole[:, 1:3], _core.matmul(a, b[:, 1:3]))
        assert_same_bits(whole.T.copy(), _core.matmul(b.T, a.T))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [1, 15, 16, 17, 100, 3072])
def test_a_column_is_summed_in_sixteen_lanes(isa: str, k: int, dtype: DType) -> None:
    """Lane j is the chain over k = j (mod 16), as a product of two columns sums it."""
    rng = np.random.default_rng(5)
    a = rng.standard_normal((37, k)).astype(dtype)
    x = rng.standard_normal(k).astype(dtype)
    twice = np.stack([x, x], axis=1)
    lanes = [_core.matmul(a[:, j::16], twice[j::16])[:, 0] for j in range(16)]
    while len(lanes) > 1:
        lanes = [_core.add(lanes[i], lanes[i + 1]) for i in range(0, len(lanes), 2)]
    assert_same_bits(_core.matmul(a, x), lanes[0])
    assert_same_bits(_core.matmul(a, x[:, None])[:, 0], lanes[0])
    assert_same_bits(_core.matmul(a[0], x), lanes[0][0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_column_adds_its_blocks_in_order(isa: str, dtype: DType) -> None:
    rng = np.random.default_rng(5)
    a, x = rng.standard_normal((19, 9000)).astype(dtype), rng.standard_normal(9000).astype(dtype)
    total = rng.standard_normal(19).astype(dtype)
    out = total.copy()
    for start in (0, 4096, 8192):
        part = slice(start, start + 4096)
        total = _core.add(total, _core.matmul(a[:, part], x[part]))
    _core.matmul(a, x, out=out, accumulate=True)
    assert_same_bits(out, total)


@pytest.mark.parametrize("dtype", DTYPES)
def test_blocks_of_k_are_added_in_order(dtype: DType) -> None:
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

PROMISED = [
    (3, 5, 7), (64, 64, 64), (100, 10, 784), (130, 700, 400), (1, 300, 500), (300, 1, 500),
    (1, 1, 20000), (4, 3, 9000), (500, 4, 500), (40, 40, 3000), (700, 1, 9000), (1, 2100, 900),
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", PROMISED, ids=str)
def test_threads_do_not_change_a_bit(shape: tuple[int, int, int], dtype: DType) -> None:
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


def test_a_long_sum_is_added_window_by_window() -> None:
    rng = np.random.default_rng(13)
    a = rng.standard_normal((90, 36000)).astype(np.float32)
    b = rng.standard_normal((36000, 128)).astype(np.float32)
    out = rng.standard_normal((2, 90, 128)).astype(np.float32)
    out[1] = out[0]
    for threads in (1, 2):
        _core.set_num_threads(threads)
        _core.matmul(a, b, out=out[threads - 1], accumulate=True)
    assert_same_bits(out[0], out[1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", PROMISED, ids=str)
def test_avx2_and_avx512_agree_bit_for_bit(shape: tuple[int, int, int], dtype: DType) -> None:
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
def test_error_is_within_the_componentwise_bound(isa: str, k: int, dtype: DType) -> None:
    """|C - AB| <= n u |A||B| with n roundings on the longest path, 2 per term without FMA."""
    rng = np.random.default_rng(8)
    a = rng.standard_normal((12, k)).astype(dtype)
    b = rng.standard_normal((k, 18)).astype(dtype)
    depth = -(-k // -(-k // DEPTH[dtype]))
    roundings = (2 if isa == "baseline" else 1) * depth + -(-k // depth)
    exact = np.einsum("ik,kj->ij", a.astype(np.longdouble), b.astype(np.longdouble))
    magnitude = np.einsum(
        "ik,kj->ij", np.abs(a, dtype=np.longdouble), np.abs(b, dtype=np.longdouble)
    )
    unit = np.finfo(dtype).eps / 2
    assert np.all(np.abs(_core.matmul(a, b) - exact) <= roundings * unit * magnitude)
    lanes = (2 if isa == "baseline" else 1) * -(-min(k, 4096) // 16) + 4 + -(-k // 4096)
    error = np.abs(_core.matmul(a, b[:, 0]) - exact[:, 0])
    assert np.all(error <= lanes * unit * magnitude[:, 0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_special_values_propagate(isa: str, dtype: DType) -> None:
    a, b = np.ones((20, 40), dtype), np.ones((40, 50), dtype)
    a[3, 7], a[5, 2], b[39, 49], b[2, 4] = np.nan, np.inf, -np.inf, 0
    result = _core.matmul(a, b)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(result, np.matmul(a, b))
    tiny = np.finfo(dtype).smallest_subnormal
    assert_same_bits(
        _core.matmul(np.full((2, 1), tiny), np.ones((1, 3), dtype)), np.full((2, 3), tiny)
    )
    assert np.all(
        np.isinf(_core.matmul(np.full((2, 9), np.finfo(dtype).max), np.ones((9, 3), dtype)))
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_empty_sum_is_zero(isa: str, dtype: DType) -> None:
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
def test_out_of_any_layout_is_written_in_place(isa: str, layout: str, dtype: DType) -> None:
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
def test_out_has_the_shape_of_the_result(
    a_shape: tuple[int, ...], b_shape: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(10)
    a, b = integers(rng, a_shape, np.float32), integers(rng, b_shape, np.float32)
    expected = np.asarray(np.matmul(a, b))
    out = np.full(expected.shape, np.nan, np.float32)
    assert _core.matmul(a, b, out=out) is out
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 9, 30), (70, 100, 64), (15, 33, 384), (300, 4, 60)], ids=str)
def test_accumulating_equals_adding_the_product(
    isa: str, shape: tuple[int, int, int], dtype: DType
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
    isa: str, activation: str | None, dtype: DType
) -> None:
    rng = np.random.default_rng(12)
    separate = getattr(_core, activation) if activation else _core.copy
    for batch, m, n, k in [
        (2, 3, 5, 7), (2, 40, 70, 30), (2, 61, 130, 900), (1, 3, 5, 3000), (1, 1, 1, 2000),
    ]:  # fmt: skip
        a = rng.standard_normal((batch, m, k)).astype(dtype)
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


def test_small_stacks_add_a_bias_to_strided_results_once() -> None:
    """Tiles that go through a buffer: two threads once shared one."""
    a, b, bias = np.ones((3, 3073, 1), np.float32), np.ones((3, 1, 2), np.float32), np.ones(2, "f4")
    for _ in range(20):
        out = np.zeros((3, 3073, 4), np.float32)[..., ::2]
        _core.matmul(a, b, out=out, bias=bias)
        np.testing.assert_array_equal(out, 2)


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
