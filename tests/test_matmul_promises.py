"""What products promise of their bits and errors: threads, instruction sets, special values."""

from __future__ import annotations

import numpy as np
import pytest

from product_table import DEPTH, DTYPES, DType, assert_same_bits
from thalweg import _core

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
