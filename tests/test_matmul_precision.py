"""Products of bfloat16 parts: exact on integers, within their bounds, and of multiply-adds' class.

AMX is emulated where the CPU has none: the same kernel on an image of its tile registers.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import thalweg as tw
from thalweg import _core

Array = npt.NDArray[Any]

BF16 = np.dtype(ml_dtypes.bfloat16)
ISAS = [*_core.available_isas(), "amx_emulated"]
PRECISIONS = ["strict", "highest", "high", "medium"]
UNIT = 2.0**-24  # of float32


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> str:
    _core.use_isa(request.param)
    return str(request.param)


def integers(rng: np.random.Generator, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    return rng.integers(-8, 9, shape).astype(dtype)


def laid_out(x: Array, layout: str) -> Array:
    """An equal matrix that lies otherwise in memory."""
    if layout == "columns":
        return np.asfortranarray(x)
    if layout == "stepped":
        frame = np.zeros((2 * x.shape[0], 3 * x.shape[1]), x.dtype)
        frame[::2, ::3] = x
        return frame[::2, ::3]
    return x[::-1, ::-1].copy()[::-1, ::-1] if layout == "reversed" else x


LAYOUTS = ["rows", "columns", "stepped", "reversed"]


def exact(a: Array, b: Array) -> Array:
    return np.matmul(a.astype(np.float64), b.astype(np.float64))


def magnitude(a: Array, b: Array) -> Array:
    return exact(np.abs(a), np.abs(b))


def path(m: int, k: int, n: int, precision: str, dtype: str = "float32") -> str:
    return _core.matmul_path(m, k, n, dtype=dtype, precision=precision)[0]


# --- values -----------------------------------------------------------------------------------


@given(
    m=st.integers(1, 67),
    n=st.integers(1, 67),
    k=st.integers(1, 67),
    layout_a=st.sampled_from(LAYOUTS),
    layout_b=st.sampled_from(LAYOUTS),
    dtype=st.sampled_from([np.dtype(np.float32), BF16]),
    precision=st.sampled_from(PRECISIONS),
    isa=st.sampled_from(ISAS),
)
def test_integer_products_are_exact(
    m: int, n: int, k: int, layout_a: str, layout_b: str, dtype: Any, precision: str, isa: str
) -> None:
    _core.use_isa(isa)
    rng = np.random.default_rng(m * 10007 + n * 101 + k)
    a, b = integers(rng, (m, k), dtype), integers(rng, (k, n), dtype)
    out = np.empty((m, n), np.float32)
    _core.matmul(laid_out(a, layout_a), laid_out(b, layout_b), out=out, precision=precision)
    np.testing.assert_array_equal(out, exact(a, b))


# Around tiles (14 and 32 rows, 16 and 32 columns, 32 of k), packing tasks (64 lines, 512 of k),
# sections (2048) and blocks of C (2048).
SHAPES = [
    *((m, 40, 33) for m in [4, 13, 14, 15, 16, 17, 27, 28, 29, 31, 32, 33, 48, 63, 64, 65, 129]),
    *((33, n, 40) for n in [4, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 129]),
    *((33, 33, k) for k in [31, 32, 33, 63, 64, 65, 511, 512, 513, 1023, 1024, 1025]),
    (15, 33, 2047), (15, 33, 2048), (15, 33, 2049), (15, 33, 4100),
    (2049, 17, 33), (17, 2049, 33), (2049, 17, 2049),
]  # fmt: skip


@pytest.mark.parametrize("isa", ["amx_emulated", _core.available_isas()[-1]])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_are_exact_around_every_boundary(shape: tuple[int, int, int], isa: str) -> None:
    _core.use_isa(isa)
    m, n, k = shape
    rng = np.random.default_rng(m + n + k)
    a, b = integers(rng, (m, k), np.float32), integers(rng, (k, n), np.float32)
    bias, start = integers(rng, (n,), np.float32), integers(rng, (m, n), np.float32)
    for precision in ("high", "medium"):
        out = start.copy()
        _core.matmul(a, b, out=out, precision=precision)
        np.testing.assert_array_equal(out, exact(a, b))
        out = np.asfortranarray(start)
        _core.matmul(a, b, out=out, accumulate=True, bias=bias, precision=precision)
        np.testing.assert_array_equal(out, exact(a, b) + start + bias)
    narrow = start.astype(BF16)
    _core.matmul(a.astype(BF16), b.astype(BF16), out=narrow, accumulate=True, bias=bias)
    np.testing.assert_array_equal(
        narrow, (exact(a, b) + start + bias).astype(np.float32).astype(BF16)
    )


@pytest.mark.parametrize("precision", PRECISIONS)
def test_batches_broadcast(isa: str, precision: str) -> None:
    rng = np.random.default_rng(2)
    for a_shape, b_shape in [
        ((5, 40, 50), (50, 60)), ((5, 40, 50), (5, 50, 60)), ((40, 50), (3, 50, 60)),
        ((2, 1, 40, 50), (3, 50, 60)), ((2, 3, 40, 50), (2, 1, 50, 60)), ((50,), (50, 60)),
        ((0, 40, 50), (50, 60)), ((40, 0), (0, 60)), ((3, 40, 50), (50,)),
    ]:  # fmt: skip
        for dtype in (np.dtype(np.float32), BF16):
            a, b = integers(rng, a_shape, dtype), integers(rng, b_shape, dtype)
            result = _core.matmul(a, b, precision=precision)
            assert result.dtype == dtype
            expected = exact(a, b).astype(np.float32).astype(dtype)
            np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh", "gelu", "softplus"])
def test_epilogues_are_those_of_separate_calls(isa: str, activation: str) -> None:
    rng = np.random.default_rng(3)
    for m, n, k in [(33, 70, 50), (40, 64, 2100)]:
        a, b, bias = (rng.standard_normal(s).astype(np.float32) for s in [(m, k), (k, n), (n,)])
        for precision in PRECISIONS:
            product = _core.matmul(a, b, precision=precision)
            expected = getattr(_core, activation)(_core.add(product, bias))
            result = _core.matmul(a, b, bias=bias, activation=activation, precision=precision)
            np.testing.assert_array_equal(result, expected)
            strided = np.repeat(bias, 3)[::3]
            result = _core.matmul(a, b, bias=strided, activation=activation, precision=precision)
            np.testing.assert_array_equal(result, expected)


def test_a_bfloat16_bias_counts_as_its_value(isa: str) -> None:
    rng = np.random.default_rng(4)
    for k in (40, 2100):
        a, b = integers(rng, (35, k), BF16), integers(rng, (k, 50), BF16)
        bias = integers(rng, (50,), BF16)
        expected = (exact(a, b) + bias.astype(np.float64)).astype(np.float32).astype(BF16)
        np.testing.assert_array_equal(_core.matmul(a, b, bias=bias), expected)
        np.testing.assert_array_equal(_core.matmul(a, b, bias=bias.astype(np.float32)), expected)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_threads_do_not_change_a_bit(isa: str, precision: str) -> None:
    rng = np.random.default_rng(5)
    for m, n, k in [(70, 90, 130), (40, 40, 2500)]:
        a = rng.standard_normal((3, m, k)).astype(np.float32)
        b = rng.standard_normal((3, k, n)).astype(np.float32)
        a[1, 3, 5] = np.inf
        results = []
        for threads in (1, 2, 3):
            _core.set_num_threads(threads)
            both = (
                _core.matmul(a, b, precision=precision),
                _core.matmul(a[0], b[0], precision=precision),
            )
            results.append([x.tobytes() for x in both])
        assert results[0] == results[1] == results[2]


# --- bounds -----------------------------------------------------------------------------------


def multiply_add_bound(k: int) -> float:
    """Roundings of a chain over a block of K, and of the blocks' sums (docs/numerics.md)."""
    blocks = -(-k // 384)
    return (-(-k // blocks) + blocks) * UNIT


BOUNDS = {"high": lambda k: 3.1e-5, "medium": lambda k: 2.0**-7 + 1.01 * multiply_add_bound(k)}


def hostile(kind: str, rng: np.random.Generator, m: int, n: int, k: int) -> tuple[Array, Array]:
    a, b = rng.standard_normal((m, k)), rng.standard_normal((k, n))
    if kind == "cancelling":
        a[:, 1::2] = -a[:, : k - k % 2 : 2] * (1 + 1e-6 * rng.standard_normal((m, k // 2)))
        b[1::2] = b[: k - k % 2 : 2]
    elif kind == "wide":
        a *= 10.0 ** rng.integers(-12, 13, a.shape)
        b *= 10.0 ** rng.integers(-12, 13, b.shape)
    elif kind == "rounding up":  # each bfloat16 errs by almost half a unit, all to one side
        a, b = np.full((m, k), 1 + 2.0**-8 - 2.0**-22), np.full((k, n), 1 + 2.0**-8 - 2.0**-22)
    elif kind == "huge":
        a *= 1e37
        b *= 1e-37
    elif kind == "tiny":
        a *= 1e-30
        b *= 1e-3
    return a.astype(np.float32), b.astype(np.float32)


@pytest.mark.parametrize("isa", [isa for isa in ISAS if isa != "baseline"])  # it rounds products
@pytest.mark.parametrize("k", [32, 33, 100, 384, 385, 1100])
@pytest.mark.parametrize("kind", ["normal", "cancelling", "wide", "rounding up", "huge", "tiny"])
def test_errors_are_within_the_bounds(isa: str, kind: str, k: int) -> None:
    _core.use_isa(isa)
    a, b = hostile(kind, np.random.default_rng(k), 33, 35, k)
    scale, reference = magnitude(a, b), exact(a, b)
    for precision in PRECISIONS:
        error = np.abs(_core.matmul(a, b, precision=precision) - reference)
        bound = BOUNDS.get(precision, multiply_add_bound)(k)
        lost = 2.0 ** (-101 if precision == "medium" else -149)  # a denormal, a term
        assert np.all(error <= bound * scale + k * lost), precision
    a, b = a.astype(BF16), b.astype(BF16)
    out = np.empty((33, 35), np.float32)
    _core.matmul(a, b, out=out)
    error = np.abs(out - exact(a, b))
    assert np.all(error <= (k + 3) * UNIT * magnitude(a, b) + k * 2.0**-149)


SPECIAL = [np.inf, -np.inf, np.nan, 3e38, -2e38, 1e38, 1e-38, 1e-45, 2.0**-101, 0.0, -0.0]


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
@pytest.mark.parametrize("isa", ["amx_emulated", _core.available_isas()[-1]])
def test_special_values_give_the_class_of_multiply_adds(isa: str, precision: str) -> None:
    """Anywhere: in any row, column, tile and section. Other tiles keep their bits."""
    _core.use_isa(isa)
    rng = np.random.default_rng(7)
    for k in (33, 70, 2100):
        a, b = (rng.standard_normal(s).astype(np.float32) for s in [(35, k), (k, 37)])
        plain = _core.matmul(a, b, precision=precision)
        for value in SPECIAL:
            for _ in range(4):
                x, y = a.copy(), b.copy()
                i, j = rng.integers(35), rng.integers(37)
                x[i, rng.integers(k)] = value
                y[rng.integers(k), j] = rng.choice(SPECIAL)
                strict = _core.matmul(x, y, precision="strict")
                result = _core.matmul(x, y, precision=precision)
                np.testing.assert_array_equal(np.isnan(result), np.isnan(strict))
                np.testing.assert_array_equal(np.isposinf(result), np.isposinf(strict))
                np.testing.assert_array_equal(np.isneginf(result), np.isneginf(strict))
        if path(35, k, 37, precision) != "multiply-adds":
            x = a.copy()
            x[0, 0] = np.nan
            result = _core.matmul(x, b, precision=precision)
            np.testing.assert_array_equal(result[32:], plain[32:])


def test_tiles_with_special_values_have_the_bits_of_multiply_adds() -> None:
    _core.use_isa("amx_emulated")
    rng = np.random.default_rng(8)
    a = rng.standard_normal((70, 2100)).astype(np.float32)
    b = rng.standard_normal((2100, 70)).astype(np.float32)
    a[40, 2090] = np.inf
    for accumulate in (False, True):
        strict, out = np.ones((2, 70, 70), np.float32)
        _core.matmul(a, b, out=strict, accumulate=accumulate, precision="strict")
        _core.matmul(a, b, out=out, accumulate=accumulate, precision="high")
        np.testing.assert_array_equal(out[32:64], strict[32:64])
        assert np.any(out[:32] != strict[:32])


@pytest.mark.parametrize("precision", ["strict", "highest"])
def test_denormals_are_not_lost(isa: str, precision: str) -> None:
    k = 64
    tiny = np.full((40, k), 1e-42, np.float32)
    result = _core.matmul(tiny, np.ones((k, 40), np.float32), precision=precision)
    np.testing.assert_array_equal(result, np.full((40, 40), np.float32(1e-42) * np.float32(k)))
    small = np.full((40, k), 2.0**-80).astype(BF16)
    out = np.empty((40, 40), np.float32)
    _core.matmul(small, np.full((k, 40), 2.0**-60).astype(BF16), out=out, precision=precision)
    np.testing.assert_array_equal(out, np.full((40, 40), 2.0**-134, np.float32))


# --- which path -------------------------------------------------------------------------------


def test_the_path_follows_precision_and_shape() -> None:
    _core.use_isa("amx_emulated")
    assert path(64, 100, 3072, "strict") == "multiply-adds"
    assert path(64, 100, 3072, "highest") == "six bfloat16 products on emulated AMX"
    assert path(64, 100, 3072, "high") == "three bfloat16 products on emulated AMX"
    assert path(64, 100, 3072, "medium") == "one bfloat16 product on emulated AMX"
    assert path(64, 100, 3072, "highest", "bfloat16") == "one bfloat16 product on emulated AMX"
    assert path(64, 100, 3072, "strict", "bfloat16") == "multiply-adds of widened operands"
    assert path(64, 100, 3072, "medium", "float64") == "multiply-adds"
    assert path(3, 1000, 3000, "medium") == "multiply-adds"
    assert path(300, 1000, 3, "medium") == "multiply-adds"
    assert path(300, 31, 300, "highest") == "multiply-adds"
    assert path(8, 8, 8, "medium") == "multiply-adds"
    _core.use_isa("baseline")
    name, reason = _core.matmul_path(64, 100, 3072, precision="medium")
    assert (name, reason) == ("multiply-adds", "this instruction set multiplies no bfloat16")


def test_float64_has_one_path() -> None:
    rng = np.random.default_rng(9)
    a, b = rng.standard_normal((40, 50)), rng.standard_normal((50, 60))
    expected = _core.matmul(a, b, precision="strict")
    for precision in PRECISIONS:
        np.testing.assert_array_equal(_core.matmul(a, b, precision=precision), expected)


def test_amx_is_refused_by_name_where_the_cpu_lacks_it() -> None:
    if "amx" in _core.available_isas():
        pytest.skip("this CPU has AMX")
    with pytest.raises(RuntimeError, match="use_isa: this CPU cannot run amx, it can run baseline"):
        _core.use_isa("amx")
    assert "amx_emulated" not in _core.available_isas()


def test_the_emulated_tile_product_sums_as_the_manual_says() -> None:
    """Even and odd k in two chains from zero; products of bfloat16 are exact in float32."""
    _core.use_isa("amx_emulated")
    rng = np.random.default_rng(10)
    a, b = (rng.standard_normal((32, 32)).astype(BF16) for _ in range(2))
    x, y = a.astype(np.float32), b.astype(np.float32)
    chains = np.zeros((2, 32, 32), np.float32)
    for k in range(32):
        chains[k % 2] += np.outer(x[:, k], y[k])
    out = np.empty((32, 32), np.float32)
    _core.matmul(a, b, out=out)
    np.testing.assert_array_equal(out, chains[0] + chains[1])


def test_gradients_take_the_precision_of_the_product() -> None:
    _core.use_isa("amx_emulated")
    rng = np.random.default_rng(11)
    a, b = (tw.tensor(rng.standard_normal((40, 40)).astype(np.float32)) for _ in range(2))
    a.requires_grad_()
    tw.functional.matmul(a, b, precision="medium").sum().backward()
    ones = np.ones((40, 40), np.float32)
    expected = _core.matmul(ones, b.numpy().T, precision="medium")
    np.testing.assert_array_equal(a.grad, expected)
