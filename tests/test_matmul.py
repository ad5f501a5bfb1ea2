"""Matrix products: exact values around every boundary, NumPy's shapes, the order of sums."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from product_table import (
    BATCHES,
    DEPTH,
    DTYPES,
    LAYOUTS,
    DType,
    assert_exact,
    assert_same_bits,
    integers,
)
from thalweg import _core


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
    """Of multiply-adds; products of bfloat16 parts have other blocks."""
    multiply = functools.partial(_core.matmul, precision="strict")
    rng = np.random.default_rng(5)
    depth = DEPTH[dtype]
    a = rng.standard_normal((20, 3 * depth)).astype(dtype)
    b = rng.standard_normal((3 * depth, 40)).astype(dtype)
    total = multiply(a[:, :depth], b[:depth])
    for start in (depth, 2 * depth):
        part = slice(start, start + depth)
        total = _core.add(total, multiply(a[:, part], b[part]))
    assert_same_bits(multiply(a, b), total)
