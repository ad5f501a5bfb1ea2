"""Convolutions of bfloat16 arrays and of bfloat16 parts of float32: values, bounds, bits."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference.conv as ref
import thalweg as tw
from conv_table import LAYOUTS, cases, drawn, run_all
from thalweg import _core

Array = ref.Array

BF16 = np.dtype(ml_dtypes.bfloat16)
ISAS = [*_core.available_isas(), "amx_emulated"]
PRECISIONS = ["strict", "highest", "high", "medium"]
UNIT = 2.0**-24  # of float32

GEOMETRIES = [
    ((2, 64, 9, 15), (40, 64, 3, 3), ref.Geometry((1, 1), (1, 1, 1, 1))),
    ((3, 34, 11, 8), (20, 17, 3, 2), ref.Geometry((2, 1), (1, 0, 1, 1), (1, 2), 2)),
    ((2, 3, 23, 22), (33, 3, 7, 7), ref.Geometry((2, 2), (3, 3, 3, 3))),
    ((3, 100, 7, 7), (48, 100, 1, 1), ref.Geometry()),
    ((1, 16, 6, 5), (16, 1, 3, 3), ref.Geometry((1, 1), (1, 1, 1, 1), (1, 1), 16)),
]
geometries = pytest.mark.parametrize(("x_shape", "w_shape", "g"), GEOMETRIES)


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> str:
    _core.use_isa(request.param)
    return str(request.param)


def operands(x_shape: Any, w_shape: Any, g: ref.Geometry, dtype: Any = BF16) -> list[Array]:
    x, w = drawn(*x_shape, dtype=dtype), drawn(*w_shape, seed=1, dtype=dtype)
    y = _core.conv2d(x, w, None, **g._asdict())
    return [x, w, drawn(w_shape[0], seed=2, dtype=dtype), drawn(*y.shape, seed=3, dtype=dtype)]


def references(x: Array, w: Array, b: Array, dy: Array, g: ref.Geometry) -> list[Array]:
    """In float64."""
    x, w, b, dy = (v.astype(np.float64) for v in (x, w, b, dy))
    return [
        ref.conv2d(x, w, b, g),
        ref.data_gradient(dy, w, x.shape[2:], g),
        ref.weight_gradient(dy, x, w.shape[2:], g),
    ]


def same_bits(a: list[Array], b: list[Array]) -> None:
    for x, y in zip(a, b, strict=True):
        assert x.dtype == y.dtype
        assert np.ascontiguousarray(x).tobytes() == np.ascontiguousarray(y).tobytes()


def widened(arrays: list[Array]) -> list[Array]:
    return [v.astype(np.float32) for v in arrays]


# --- bfloat16 arrays --------------------------------------------------------------------------


@given(
    cases([BF16]),
    st.sampled_from(sorted(LAYOUTS)),
    st.sampled_from(sorted(LAYOUTS)),
    st.sampled_from(ISAS),
    st.sampled_from(PRECISIONS),
)
def test_integer_convolutions_are_exact_up_to_the_last_rounding(
    case: Any, layout: str, other: str, isa: str, precision: str
) -> None:
    _core.use_isa(isa)
    x, w, b, dy, g = case
    arrays = LAYOUTS[layout](x), LAYOUTS[other](w), b, LAYOUTS[other](dy)
    results = run_all(*arrays, g, precision=precision)
    for result, exact in zip(results, references(*case), strict=True):
        np.testing.assert_array_equal(result, exact.astype(np.float32).astype(BF16))


@geometries
@pytest.mark.parametrize("precision", PRECISIONS)
def test_errors_stay_within_the_bound_of_multiply_adds(
    x_shape: Any, w_shape: Any, g: ref.Geometry, precision: str, isa: str
) -> None:
    """And half a unit of bfloat16, at every precision: products of bfloat16 are exact."""
    arrays = operands(x_shape, w_shape, g)
    scales = references(*(np.abs(v.astype(np.float64)) for v in arrays), g)  # type: ignore[arg-type]
    lengths = [arrays[1][0].size, arrays[1][:, 0].size, arrays[3][:, 0].size]
    both = zip(run_all(*arrays, g, precision=precision), references(*arrays, g), strict=True)
    for (result, exact), scale, n in zip(both, scales, lengths, strict=True):
        bound = 2 * (n + 3) * UNIT * scale + 2.0**-8 * np.abs(exact)
        assert (np.abs(result.astype(np.float64) - exact) <= bound).all()


@geometries
def test_multiply_adds_have_the_bits_of_float32_rounded_once(
    x_shape: Any, w_shape: Any, g: ref.Geometry, isa: str
) -> None:
    arrays = operands(x_shape, w_shape, g)
    plain = run_all(*widened(arrays), g, precision="strict")
    same_bits(run_all(*arrays, g, precision="strict"), [v.astype(BF16) for v in plain])


@geometries
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("bias_dtype", [BF16, np.dtype(np.float32)])
def test_bias_and_activation_come_before_the_rounding(
    x_shape: Any, w_shape: Any, g: ref.Geometry, activation: str, bias_dtype: Any
) -> None:
    x, w, b, _ = operands(x_shape, w_shape, g)
    b = drawn(len(b), seed=5).astype(bias_dtype)
    options: dict[str, Any] = {**g._asdict(), "activation": activation, "precision": "strict"}
    plain = _core.conv2d(
        x.astype(np.float32), w.astype(np.float32), b.astype(np.float32), **options
    )
    same_bits([_core.conv2d(x, w, b, **options)], [plain.astype(BF16)])


@geometries
@pytest.mark.parametrize("dtype", [BF16, np.dtype(np.float32)])
@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_neither_threads_nor_layout_change_a_bit(
    x_shape: Any, w_shape: Any, g: ref.Geometry, dtype: Any, precision: str
) -> None:
    for isa in ("amx_emulated", _core.available_isas()[-1]):
        _core.use_isa(isa)
        x, w, b, dy = operands(x_shape, w_shape, g, dtype)
        expected = run_all(x, w, b, dy, g, precision=precision)
        for threads in (1, 3):
            _core.set_num_threads(threads)
            for layout in LAYOUTS.values():
                arrays = layout(x), layout(w), b, layout(dy)
                same_bits(run_all(*arrays, g, precision=precision), expected)


def test_empty_bfloat16_arrays_give_empty_results() -> None:
    w = drawn(4, 3, 3, 3, dtype=BF16)
    y = tw.conv2d(np.empty((0, 3, 5, 5), BF16), w)
    dx, dw, db = tw.conv2d_backward(y, np.empty((0, 3, 5, 5), BF16), w)
    assert y.shape == (0, 4, 3, 3) and dx.shape == (0, 3, 5, 5)
    assert dw.shape == w.shape and not dw.any() and not db.any()
    assert {v.dtype for v in (y, dx, dw, db)} == {BF16}


def test_the_gradient_of_a_bfloat16_bias_is_rounded_once() -> None:
    x, w, _, dy = operands(*GEOMETRIES[0])
    db = tw.conv2d_backward(dy, x, w, padding=1)[2]
    expected = dy.astype(np.float64).sum((0, 2, 3)).astype(np.float32).astype(BF16)
    same_bits([db], [expected])


def test_dtypes_that_differ_are_refused() -> None:
    x, w = drawn(1, 2, 5, 5, dtype=BF16), drawn(3, 2, 3, 3, dtype=BF16)
    with pytest.raises(TypeError, match="conv2d: weight is float32 but x is bfloat16"):
        tw.conv2d(x, w.astype(np.float32))
    with pytest.raises(TypeError, match="conv2d: bias is float64 but x is bfloat16"):
        tw.conv2d(x, w, np.ones(3))
    with pytest.raises(TypeError, match="conv2d: bias is bfloat16 but x is float32"):
        tw.conv2d(x.astype(np.float32), w.astype(np.float32), np.ones(3, BF16))
    with pytest.raises(TypeError, match="x must be float32, float64 or bfloat16, got float16"):
        tw.conv2d(x.astype(np.float16), w)


# --- bfloat16 parts of float32 ----------------------------------------------------------------


@given(
    cases([np.float32]),
    st.sampled_from(sorted(LAYOUTS)),
    st.sampled_from(sorted(LAYOUTS)),
    st.sampled_from(["highest", "high", "medium"]),
    st.sampled_from(["relu", None]),
)
def test_integer_convolutions_are_exact_in_parts(
    case: Any, layout: str, other: str, precision: str, activation: str | None
) -> None:
    _core.use_isa("amx_emulated")
    x, w, b, dy, g = case
    arrays = LAYOUTS[layout](x), LAYOUTS[other](w), b, LAYOUTS[other](dy)
    results = run_all(*arrays, g, precision=precision)
    for result, exact in zip(results, references(*case), strict=True):
        np.testing.assert_array_equal(result, exact)
    options = {**g._asdict(), "precision": precision, "activation": activation}
    y = _core.conv2d(*arrays[:2], np.repeat(b, 2)[::2], **options)
    exact = references(*case)[0]
    np.testing.assert_array_equal(y, np.maximum(exact, 0) if activation else exact)


# Channels around slabs of 32, outputs around panels of 32, pixels around tiles of 14 and 32.
SPLIT = [
    ((2, 32, 6, 14), (32, 32, 1, 3), ref.Geometry()),
    ((3, 31, 7, 15), (33, 31, 2, 1), ref.Geometry((1, 1), (1, 0, 0, 0))),
    ((2, 33, 5, 33), (16, 33, 1, 1), ref.Geometry()),
    ((2, 96, 9, 9), (17, 96, 3, 4), ref.Geometry((2, 2), (1, 1, 1, 2))),
    ((2, 130, 7, 7), (40, 65, 4, 2), ref.Geometry((1, 1), (2, 1, 0, 1), (2, 1), 2)),
    ((4, 48, 14, 14), (24, 48, 1, 1), ref.Geometry((2, 2))),
    ((2, 16, 12, 30), (70, 16, 3, 3), ref.Geometry((3, 1), (3, 3, 0, 0))),
]
split = pytest.mark.parametrize(("x_shape", "w_shape", "g"), SPLIT)


@split
def test_parts_are_exact_around_every_boundary(x_shape: Any, w_shape: Any, g: ref.Geometry) -> None:
    rng = np.random.default_rng(0)
    x, w, b = (rng.integers(-8, 9, s).astype(np.float32) for s in (x_shape, w_shape, w_shape[0]))
    dy = rng.integers(-8, 9, ref.conv2d(x, w, None, g).shape).astype(np.float32)
    for isa in ("amx_emulated", _core.available_isas()[-1]):
        _core.use_isa(isa)
        for precision in ("highest", "high", "medium"):
            for result, exact in zip(
                run_all(x, w, b, dy, g, precision=precision),
                references(x, w, b, dy, g),
                strict=True,
            ):
                np.testing.assert_array_equal(result, exact, f"{isa} {precision}")


BOUNDS = {"high": 3.1e-5, "medium": 2.0**-7 * 1.01}


@split
@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_errors_of_parts_stay_within_the_bounds(
    x_shape: Any, w_shape: Any, g: ref.Geometry, precision: str
) -> None:
    arrays = operands(x_shape, w_shape, g, np.float32)
    exact = references(*arrays, g)
    scales = references(*(np.abs(v) for v in arrays), g)  # type: ignore[arg-type]
    lengths = [arrays[1][0].size, arrays[1][:, 0].size, arrays[3][:, 0].size]
    for isa in ("amx_emulated", _core.available_isas()[-1]):
        _core.use_isa(isa)
        results = run_all(*arrays, g, precision=precision)
        for result, right, scale, n in zip(results, exact, scales, lengths, strict=True):
            bound = BOUNDS.get(precision, (min(n, 384) + -(-n // 384) + 2) * UNIT)
            assert (np.abs(result - right) <= bound * scale).all(), isa
        strict = run_all(*arrays, g, precision="strict")
        if isa == "amx_emulated":
            assert (results[0] != strict[0]).any(), "the same bits: nothing was split"


@pytest.mark.parametrize("isa", ["amx_emulated", _core.available_isas()[-1]])
def test_a_convolution_of_parts_has_the_bits_of_the_lowered_product(isa: str) -> None:
    _core.use_isa(isa)
    g = ref.Geometry((2, 1), (0, 0, 0, 0), (1, 2))
    for channels in (64, 160):
        x, w, _, _ = operands((2, channels, 9, 12), (40, channels, 3, 3), g)
        seen = ref.patches(x, (3, 3), g)
        rows = np.ascontiguousarray(seen).reshape(-1, w[0].size)
        product = _core.matmul(rows, w.transpose(2, 3, 1, 0).reshape(w[0].size, 40))
        expected = product.reshape(*seen.shape[:3], 40).transpose(0, 3, 1, 2)
        same_bits([_core.conv2d(x, w, None, **g._asdict())], [expected])


SPECIAL = [np.inf, -np.inf, np.nan, 3e38, 1e38, 1e-38, 1e-45, 2.0**-101, 0.0]


@pytest.mark.parametrize("isa", ["amx_emulated", _core.available_isas()[-1]])
@pytest.mark.parametrize("dtype", [BF16, np.dtype(np.float32)])
def test_special_values_give_the_class_of_multiply_adds(isa: str, dtype: Any) -> None:
    _core.use_isa(isa)
    g = ref.Geometry((1, 2), (1, 0, 1, 0))
    x, w, b, dy = operands((2, 40, 6, 9), (33, 40, 3, 2), g, dtype)
    rng = np.random.default_rng(7)
    for value in SPECIAL:
        for other in SPECIAL:
            arrays = [v.copy() for v in (x, w, b, dy)]
            arrays[0][tuple(rng.integers(x.shape))] = dtype.type(value)
            arrays[1][tuple(rng.integers(w.shape))] = dtype.type(other)
            arrays[3][tuple(rng.integers(dy.shape))] = dtype.type(value)
            strict = run_all(*arrays, g, precision="strict")
            for precision in ("highest", "high", "medium"):
                for a, e in zip(run_all(*arrays, g, precision=precision), strict, strict=True):
                    a, e = a.astype(np.float32), e.astype(np.float32)
                    for of_class in (np.isnan, np.isposinf, np.isneginf):
                        np.testing.assert_array_equal(of_class(a), of_class(e))


@pytest.mark.parametrize("precision", ["strict", "highest"])
def test_denormals_are_not_lost(isa: str, precision: str) -> None:
    x, w = np.full((1, 32, 4, 4), 1e-42, np.float32), np.ones((32, 32, 1, 1), np.float32)
    y = _core.conv2d(x, w, None, **ref.PLAIN._asdict(), precision=precision)
    np.testing.assert_array_equal(y, np.full(y.shape, np.float32(1e-42) * np.float32(32)))


def test_gradients_take_the_precision_of_the_call() -> None:
    _core.use_isa("amx_emulated")
    x, w = (tw.Tensor(drawn(2, 32, 5, 5), requires_grad=True), drawn(32, 32, 3, 3, seed=1))
    tw.conv2d(x, w, padding=1, precision="medium").sum().backward()
    ones = np.ones((2, 32, 5, 5), np.float32)
    g = ref.Geometry((1, 1), (1, 1, 1, 1))
    expected = _core.conv2d_data_gradient(ones, w, (5, 5), **g._asdict(), precision="medium")
    np.testing.assert_array_equal(x.grad, expected)
    assert (expected != _core.conv2d_data_gradient(ones, w, (5, 5), **g._asdict())).any()
