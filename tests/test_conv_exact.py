"""What the bits of convolutions depend on, and how far they are from the exact value."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import reference.conv as ref
from conv_table import DTYPES, LAYOUTS, drawn, run_all
from thalweg import _core

Array = ref.Array
# Instruction sets that multiply and add; on AMX products of bfloat16 parts come first
# (test_conv_precision.py).
ISAS = [isa for isa in _core.available_isas() if isa != "amx"]
DEPTH = {np.float32: 384, np.float64: 192}  # of a chain of multiply-adds, see numerics.md


@pytest.fixture(autouse=True)
def multiply_adds() -> None:
    _core.use_isa(ISAS[-1])


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> str:
    _core.use_isa(request.param)
    return str(request.param)


def same_bits(a: list[Array], b: list[Array]) -> None:
    for x, y in zip(a, b, strict=True):
        assert np.ascontiguousarray(x).tobytes() == np.ascontiguousarray(y).tobytes()


# Blocks of K, panels of outputs, tiles of pixels, several images and parts of images in a block.
GEOMETRIES = [
    ((2, 3, 30, 31), (40, 3, 7, 7), ref.Geometry((2, 2), (3, 3, 3, 3))),
    ((3, 1, 28, 28), (32, 1, 5, 5), ref.Geometry()),
    ((2, 64, 19, 17), (33, 64, 3, 3), ref.Geometry((1, 1), (1, 1, 1, 1))),
    ((9, 48, 7, 7), (20, 48, 1, 1), ref.Geometry()),
    ((40, 68, 21, 21), (66, 68, 1, 1), ref.Geometry()),
    ((2, 20, 9, 11), (34, 20, 1, 1), ref.Geometry((2, 3))),
    ((3, 34, 8, 7), (20, 17, 1, 1), ref.Geometry(groups=2)),
    ((2, 40, 6, 8), (24, 40, 1, 1), ref.Geometry((2, 1), (0, 1, 0, 3))),
    ((2, 256, 9, 8), (16, 256, 3, 3), ref.Geometry((2, 1), (1, 0, 1, 1))),
    ((2, 24, 12, 12), (48, 12, 3, 3), ref.Geometry((1, 1), (2, 2, 2, 2), (2, 2), 2)),
    ((1, 8, 3, 460), (5, 8, 1, 3), ref.Geometry()),
    ((4, 16, 5, 5), (70, 16, 5, 5), ref.Geometry()),
    ((2, 12, 9, 9), (12, 1, 3, 3), ref.Geometry((1, 1), (1, 1, 1, 1), (1, 1), 12)),
    # Few channels of x or y, whose tiles are rows of pixels; blocks of K end inside a kernel's row.
    ((2, 3, 39, 41), (48, 3, 5, 5), ref.Geometry((2, 2), (2, 2, 2, 2))),
    ((2, 70, 9, 33), (2, 70, 3, 3), ref.Geometry((1, 1), (1, 2, 1, 1))),
    ((2, 24, 12, 40), (4, 12, 3, 3), ref.Geometry((1, 1), (2, 2, 2, 2), (2, 2), 2)),
    ((2, 4, 25, 36), (90, 4, 4, 3), ref.Geometry((1, 1), (6, 0, 3, 0), (3, 1))),
]
geometries = pytest.mark.parametrize(("x_shape", "w_shape", "g"), GEOMETRIES)


def operands(x_shape: Any, w_shape: Any, g: ref.Geometry, dtype: Any = np.float32) -> Any:
    x, w = drawn(*x_shape, dtype=dtype), drawn(*w_shape, seed=1, dtype=dtype)
    y = _core.conv2d(x, w, None, **g._asdict())
    return x, w, drawn(w_shape[0], seed=2, dtype=dtype), drawn(*y.shape, seed=3, dtype=dtype)


def wide_product(a: Any, b: Any) -> Any:
    """a @ b as a part of a wider product: a single column would be summed in another order."""
    return _core.matmul(a, np.concatenate([b, b], axis=1))[:, : b.shape[1]]


@geometries
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_convolution_has_the_bits_of_the_lowered_product(
    x_shape: Any, w_shape: Any, g: ref.Geometry, dtype: Any, isa: str
) -> None:
    x, w, b, _ = operands(x_shape, w_shape, g, dtype)
    y = _core.conv2d(x, w, b, **g._asdict())
    inputs, outputs = w.shape[1], w.shape[0] // g.groups
    for group in range(g.groups):
        seen = ref.patches(x[:, group * inputs : (group + 1) * inputs], w.shape[2:], g)
        some = slice(group * outputs, (group + 1) * outputs)
        rows = seen.reshape(-1, w[0].size)
        columns = w[some].transpose(2, 3, 1, 0).reshape(w[0].size, outputs)
        product = wide_product(rows, columns) + b[some]
        expected = product.reshape(*seen.shape[:3], outputs).transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(y[:, some], expected)


@geometries
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_data_gradient_has_the_bits_of_lowered_products(
    x_shape: Any, w_shape: Any, g: ref.Geometry, dtype: Any, isa: str
) -> None:
    x, w, _, dy = operands(x_shape, w_shape, g, dtype)
    dx = _core.conv2d_data_gradient(dy, w, x.shape[2:], **g._asdict())
    inputs, outputs = w.shape[1], w.shape[0] // g.groups
    for group, row, column in itertools.product(range(g.groups), *map(range, g.stride)):
        some = slice(group * outputs, (group + 1) * outputs)
        got = dx[
            :, group * inputs : (group + 1) * inputs, row :: g.stride[0], column :: g.stride[1]
        ]
        seen, weights = ref.phase_patches(dy[:, some], w[some], (row, column), got.shape[2:], g)
        product = wide_product(seen, weights).reshape(len(x), *got.shape[2:], inputs)
        np.testing.assert_array_equal(got, product.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(  # a longer row would be two blocks of a product's K
    ("x_shape", "w_shape", "g"), [row for row in GEOMETRIES if row[0][-1] < 192]
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_weight_gradient_has_the_bits_of_products_of_blocks(
    x_shape: Any, w_shape: Any, g: ref.Geometry, dtype: Any, isa: str
) -> None:
    x, w, _, dy = operands(x_shape, w_shape, g, dtype)
    dw = _core.conv2d_weight_gradient(dy, x, w.shape[2:], **g._asdict())
    inputs, outputs = w.shape[1], w.shape[0] // g.groups
    for group in range(g.groups):
        seen = ref.patches(x[:, group * inputs : (group + 1) * inputs], w.shape[2:], g)
        some = slice(group * outputs, (group + 1) * outputs)
        parts = dy[:, some].transpose(0, 2, 3, 1)
        total: Any = None
        for block in ref.weight_blocks(len(x), *dy.shape[2:], DEPTH[dtype]):
            pixels = parts[block].reshape(-1, outputs)
            sums = wide_product(seen[block].reshape(len(pixels), -1).T, pixels)
            total = sums if total is None else total + sums
        expected = total.reshape(*w.shape[2:], inputs, outputs).transpose(3, 2, 0, 1)
        np.testing.assert_array_equal(dw[some], expected)


@geometries
def test_bits_depend_on_neither_threads_nor_layout_nor_vectors(
    x_shape: Any, w_shape: Any, g: ref.Geometry
) -> None:
    x, w, b, dy = operands(x_shape, w_shape, g)
    expected = run_all(x, w, b, dy, g)
    for isa in sorted({"avx2", "avx512"} & set(_core.available_isas())):
        _core.use_isa(isa)
        for threads in (1, 2, 5):
            _core.set_num_threads(threads)
            for layout in LAYOUTS.values():
                same_bits(run_all(layout(x), layout(w), b, layout(dy), g), expected)


@geometries
@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh", "softplus", "gelu"])
def test_fused_bias_and_activation_have_the_bits_of_separate_calls(
    x_shape: Any, w_shape: Any, g: ref.Geometry, activation: str, isa: str
) -> None:
    x, w, b, _ = operands(x_shape, w_shape, g)
    plain = _core.conv2d(x, w, None, **g._asdict())
    with_bias = _core.add(plain, b[:, None, None])
    same_bits([_core.conv2d(x, w, b, **g._asdict())], [with_bias])
    fused = _core.conv2d(x, w, b, activation=activation, **g._asdict())
    same_bits([fused], [getattr(_core, activation)(with_bias)])


# 3 x 3 and 5 x 5 at step 1 with enough channels: fewer products at "high" and "medium".
FEWER = [
    ((2, 64, 14, 15), (40, 64, 3, 3), ref.Geometry((1, 1), (1, 1, 1, 1))),
    ((3, 256, 7, 7), (48, 256, 3, 3), ref.Geometry((1, 1), (1, 1, 1, 1))),
    ((1, 400, 9, 8), (33, 400, 3, 3), ref.Geometry()),
    ((2, 34, 12, 30), (64, 17, 3, 3), ref.Geometry((1, 1), (2, 0, 1, 2), (1, 1), 2)),
    ((3, 32, 14, 13), (64, 32, 5, 5), ref.Geometry((1, 1), (2, 2, 2, 2))),
    ((2, 32, 8, 9), (40, 16, 5, 5), ref.Geometry((1, 1), (0, 4, 1, 0), (1, 1), 2)),
]
fewer = pytest.mark.parametrize(("x_shape", "w_shape", "g"), FEWER)


@fewer
@pytest.mark.parametrize("precision", ["high", "medium"])
def test_fewer_products_stay_within_the_bound_of_high(
    x_shape: Any, w_shape: Any, g: ref.Geometry, precision: str, isa: str
) -> None:
    """3.1e-5 of the largest sum of magnitudes, that of `matmul`."""
    x, w, b, dy = operands(x_shape, w_shape, g)
    wide = [v.astype(np.float64) for v in (x, w, 0 * b, dy)]
    exact, scale = references(*wide, g), references(*[np.abs(v) for v in wide], g)
    plain = run_all(x, w, 0 * b, dy, g, precision="highest")
    for i, result in enumerate(run_all(x, w, 0 * b, dy, g, precision=precision)):
        assert np.abs(result - exact[i]).max() <= 3.1e-5 * scale[i].max()
        assert (result != plain[i]).any(), "the same bits: products were not saved"


@fewer
def test_fewer_products_have_the_same_bits_everywhere(
    x_shape: Any, w_shape: Any, g: ref.Geometry
) -> None:
    x, w, b, dy = operands(x_shape, w_shape, g)
    expected = run_all(x, w, b, dy, g, precision="high")
    unfused = _core.conv2d(x, w, None, **g._asdict(), precision="high")
    same_bits([_core.add(unfused, b[:, None, None])], expected[:1])
    for isa in sorted({"avx2", "avx512"} & set(_core.available_isas())):
        _core.use_isa(isa)
        for threads in (1, 2, 5):
            _core.set_num_threads(threads)
            for layout in LAYOUTS.values():
                same_bits(
                    run_all(layout(x), layout(w), b, layout(dy), g, precision="high"), expected
                )


def test_fewer_products_of_many_weights_have_the_same_bits_panel_by_panel() -> None:
    """Above 16 MiB they are used where they are made, if each thread has two panels to do."""
    x, w, b, dy = operands((41, 352, 7, 5), (352, 352, 3, 3), g := FEWER[0][2])
    results = []
    for threads in (1, 12):
        _core.set_num_threads(threads)
        results.append(run_all(x, w, b, dy, g, precision="high"))
    same_bits(*results)


def test_fewer_products_are_for_float32_alone() -> None:
    x, w, b, dy = operands(*FEWER[0], dtype=np.float64)
    g = FEWER[0][2]
    same_bits(run_all(x, w, b, dy, g, precision="high"), run_all(x, w, b, dy, g))


@pytest.mark.parametrize("dtype", DTYPES)
def test_errors_stay_within_the_bound(dtype: Any) -> None:
    """A chain of n multiply-adds errs by at most n eps/2 of the sum of magnitudes."""
    x_shape, w_shape, g = GEOMETRIES[4]
    x, w, b, dy = operands(x_shape, w_shape, g, dtype)
    got = run_all(x, w, 0 * b, dy, g)
    wide = [v.astype(np.float64) for v in (x, w, 0 * b, dy)]
    exact, bound = (references(*[f(v) for v in wide], g) for f in (np.asarray, np.abs))
    lengths = [w[0].size, w[:, 0].size, dy[:, 0].size]
    for result, right, scale, n in zip(got, exact, bound, lengths, strict=True):
        assert (abs(result - right) <= (n + 2) * np.finfo(dtype).eps / 2 * scale).all()


def references(x: Array, w: Array, b: Array, dy: Array, g: ref.Geometry) -> list[Array]:
    return [
        ref.conv2d(x, w, b, g),
        ref.data_gradient(dy, w, x.shape[2:], g),
        ref.weight_gradient(dy, x, w.shape[2:], g),
    ]
