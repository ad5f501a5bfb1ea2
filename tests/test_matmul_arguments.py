"""The arguments of products: out, accumulate, bias, activation, precision."""

from __future__ import annotations

import numpy as np
import pytest

from product_table import (
    ACTIVATIONS,
    BATCHES,
    DEPTH,
    DTYPES,
    LAYOUTS,
    DType,
    assert_same_bits,
    integers,
)
from thalweg import _core


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
