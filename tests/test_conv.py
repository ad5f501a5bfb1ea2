"""Convolutions: values, gradients, bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference.conv as ref
import thalweg as tw
from gradcheck import check_gradient, check_second_derivative
from thalweg import _core, nn

Array = ref.Array
DTYPES = [np.float32, np.float64]
DEPTH = {np.float32: 384, np.float64: 192}  # of a chain of multiply-adds, see numerics.md
LAYOUTS = {
    "NCHW": lambda x: np.ascontiguousarray(x),
    "NHWC": lambda x: x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2),
    "strided": lambda x: np.repeat(np.repeat(x, 2, 1), 2, 3)[:, ::2, :, ::2],
    "reversed": lambda x: x[::-1, ::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1, ::-1],
}


@st.composite
def cases(draw: st.DrawFn) -> tuple[Array, Array, Array, Array, ref.Geometry]:
    """Integer-valued operands, whose sums are exact in any order, and a geometry."""
    small = st.integers(1, 3)
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    channels = groups * draw(st.sampled_from([1, 2, 3, 8, 17]))
    outputs = groups * draw(st.sampled_from([1, 3, 8, 16, 33]))
    kernel = (draw(st.integers(1, 5)), draw(st.integers(1, 5)))
    dilation = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    padding = tuple(draw(st.integers(0, 4)) for _ in range(4))
    size = []
    for i in range(2):
        least = dilation[i] * (kernel[i] - 1) + 1 - padding[2 * i] - padding[2 * i + 1]
        size.append(max(1, least) + draw(st.sampled_from([0, 1, 4, 9, 16])))
    g = ref.Geometry((draw(small), draw(small)), padding, dilation, groups)
    dtype = draw(st.sampled_from(DTYPES))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))

    def integers(*shape: int) -> Array:
        return rng.integers(-4, 5, shape).astype(dtype)

    x = integers(draw(small), channels, *size)
    w = integers(outputs, channels // groups, *kernel)
    y = ref.conv2d(x, w, None, g)
    return x, w, integers(outputs), integers(*y.shape), g


def run_all(
    x: Array, w: Array, b: Array, dy: Array, g: ref.Geometry, **options: Any
) -> list[Array]:
    """y, dx, dw."""
    return [
        _core.conv2d(x, w, b, **g._asdict(), **options),
        _core.conv2d_data_gradient(dy, w, x.shape[2:], **g._asdict(), **options),
        _core.conv2d_weight_gradient(dy, x, w.shape[2:], **g._asdict(), **options),
    ]


def drawn(*shape: int, seed: int = 0, dtype: Any = np.float32) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def same_bits(a: list[Array], b: list[Array]) -> None:
    for x, y in zip(a, b, strict=True):
        assert np.ascontiguousarray(x).tobytes() == np.ascontiguousarray(y).tobytes()


# --- values -----------------------------------------------------------------------------------


@given(
    cases(),
    st.sampled_from(sorted(LAYOUTS)),
    st.sampled_from(sorted(LAYOUTS)),
    st.sampled_from(_core.available_isas()),
    st.sampled_from(["strict", "highest"]),
)
def test_integer_convolutions_are_exact(
    case: Any, layout: str, other: str, isa: str, precision: str
) -> None:
    _core.use_isa(isa)
    x, w, b, dy, g = case
    y, dx, dw = run_all(
        LAYOUTS[layout](x), LAYOUTS[other](w), b, LAYOUTS[other](dy), g, precision=precision
    )
    np.testing.assert_array_equal(y, ref.conv2d(x, w, b, g))
    np.testing.assert_array_equal(dx, ref.data_gradient(dy, w, x.shape[2:], g))
    np.testing.assert_array_equal(dw, ref.weight_gradient(dy, x, w.shape[2:], g))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_results_are_laid_out_as_images_are(layout: str) -> None:
    x, w = LAYOUTS[layout](drawn(2, 3, 5, 6)), drawn(4, 3, 3, 3)
    y = tw.conv2d(x, w)
    dx, dw, _ = tw.conv2d_backward(y, x, w)
    for image in (y, dx):
        inside = image if layout == "NCHW" else image.transpose(0, 2, 3, 1)
        assert inside.flags.c_contiguous
    assert dw.flags.c_contiguous


# --- bits -------------------------------------------------------------------------------------

# Blocks of K, panels of outputs, tiles of pixels, several images and parts of images in a block.
GEOMETRIES = [
    ((2, 3, 30, 31), (40, 3, 7, 7), ref.Geometry((2, 2), (3, 3, 3, 3))),
    ((3, 1, 28, 28), (32, 1, 5, 5), ref.Geometry()),
    ((2, 64, 19, 17), (33, 64, 3, 3), ref.Geometry((1, 1), (1, 1, 1, 1))),
    ((9, 48, 7, 7), (20, 48, 1, 1), ref.Geometry()),
    ((2, 256, 9, 8), (16, 256, 3, 3), ref.Geometry((2, 1), (1, 0, 1, 1))),
    ((2, 24, 12, 12), (48, 12, 3, 3), ref.Geometry((1, 1), (2, 2, 2, 2), (2, 2), 2)),
    ((1, 8, 3, 460), (5, 8, 1, 3), ref.Geometry()),
    ((4, 16, 5, 5), (70, 16, 5, 5), ref.Geometry()),
    ((2, 12, 9, 9), (12, 1, 3, 3), ref.Geometry((1, 1), (1, 1, 1, 1), (1, 1), 12)),
]
geometries = pytest.mark.parametrize(("x_shape", "w_shape", "g"), GEOMETRIES)


def operands(x_shape: Any, w_shape: Any, g: ref.Geometry, dtype: Any = np.float32) -> Any:
    x, w = drawn(*x_shape, dtype=dtype), drawn(*w_shape, seed=1, dtype=dtype)
    y = _core.conv2d(x, w, None, **g._asdict())
    return x, w, drawn(w_shape[0], seed=2, dtype=dtype), drawn(*y.shape, seed=3, dtype=dtype)


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
        product = _core.matmul(rows, columns, bias=b[some])
        expected = product.reshape(*seen.shape[:3], outputs).transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(y[:, some], expected)


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
            sums = _core.matmul(seen[block].reshape(len(pixels), -1).T, pixels)
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


# 3 x 3 at step 1 with enough channels: fewer products at "high" and "medium".
FEWER = [
    ((2, 64, 14, 15), (40, 64, 3, 3), ref.Geometry((1, 1), (1, 1, 1, 1))),
    ((3, 256, 7, 7), (48, 256, 3, 3), ref.Geometry((1, 1), (1, 1, 1, 1))),
    ((1, 400, 9, 8), (33, 400, 3, 3), ref.Geometry()),
    ((2, 34, 12, 30), (64, 17, 3, 3), ref.Geometry((1, 1), (2, 0, 1, 2), (1, 1), 2)),
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


# --- gradients --------------------------------------------------------------------------------

OPTIONS: list[dict[str, Any]] = [
    {},
    {"stride": 2, "padding": 1},
    {"stride": (1, 2), "padding": (0, 2), "dilation": (2, 1)},
    {"groups": 2, "padding": "same"},
    {"padding": "same", "dilation": 2},
    {"stride": 3, "padding": "valid", "groups": 2},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_gradients_equal_finite_differences(options: dict[str, Any]) -> None:
    shape = (4, 2 // options.get("groups", 1), 2, 3)
    arrays = [drawn(2, 2, 5, 4, dtype=np.float64), drawn(*shape, seed=1, dtype=np.float64)]
    check_gradient(
        lambda x, w, b: tw.conv2d(x, w, b, **options), [*arrays, drawn(4, dtype=np.float64)]
    )
    check_second_derivative(lambda x, w: tw.conv2d(x, w, **options), arrays)


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh", "softplus"])
def test_gradients_through_a_fused_activation(activation: str) -> None:
    arrays = [drawn(*s, seed=5, dtype=np.float64) for s in [(1, 2, 4, 4), (3, 2, 3, 3), (3,)]]
    check_gradient(lambda x, w, b: tw.conv2d(x, w, b, activation=activation), arrays)


def test_conv2d_backward_is_what_autograd_gives() -> None:
    x, w, b = (tw.Tensor(drawn(*s), requires_grad=True) for s in [(2, 3, 6, 6), (4, 3, 3, 3), (4,)])
    y = tw.conv2d(x, w, b, 2, 1)
    dy = drawn(*y.shape, seed=3)
    y.backward(tw.Tensor(dy))
    for ours, recorded in zip(tw.conv2d_backward(dy, x, w, 2, 1), (x, w, b), strict=True):
        np.testing.assert_array_equal(ours, recorded.grad)


# --- edges ------------------------------------------------------------------------------------


def test_empty_batches_and_channels() -> None:
    w, b = drawn(4, 3, 3, 3), drawn(4)
    y = tw.conv2d(np.empty((0, 3, 5, 5), np.float32), w, b)
    assert y.shape == (0, 4, 3, 3)
    dx, dw, db = tw.conv2d_backward(y, np.empty((0, 3, 5, 5), np.float32), w)
    assert dx.shape == (0, 3, 5, 5)
    assert not dw.any() and dw.shape == w.shape and not db.any()
    y = tw.conv2d(np.empty((2, 0, 5, 5), np.float32), np.empty((4, 0, 3, 3), np.float32), b)
    np.testing.assert_array_equal(y, np.broadcast_to(b[:, None, None], (2, 4, 3, 3)))
    y = tw.conv2d(drawn(2, 3, 5, 5), np.empty((0, 3, 3, 3), np.float32))
    assert y.shape == (2, 0, 3, 3)
    dx, dw, _ = tw.conv2d_backward(y, drawn(2, 3, 5, 5), np.empty((0, 3, 3, 3), np.float32))
    assert not dx.any() and dw.shape == (0, 3, 3, 3)
    only_padding = tw.conv2d(np.empty((2, 3, 0, 5), np.float32), w, b, padding=2)
    np.testing.assert_array_equal(only_padding[0, :, 0, 0], b)


def test_positions_that_no_kernel_sees_have_no_gradient() -> None:
    x, w = np.ones((1, 1, 7, 7), np.float32), np.ones((1, 1, 1, 1), np.float32)
    dx, _, _ = tw.conv2d_backward(np.ones((1, 1, 3, 3), np.float32), x, w, stride=3)
    expected = np.zeros((7, 7), np.float32)
    expected[::3, ::3] = 1
    np.testing.assert_array_equal(dx[0, 0], expected)


def test_nan_reaches_what_sees_it_and_nothing_else() -> None:
    x, w = drawn(1, 2, 6, 6), drawn(3, 2, 3, 3)
    x[0, 1, 2, 2] = np.nan
    y = tw.conv2d(x, w)
    assert np.isnan(y[:, :, :3, :3]).all() and np.isfinite(y[:, :, 3:, 3:]).all()


BAD: list[tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ("the kernel spans 5 elements, but the padded input has 4", (1, 2, 4, 9), (3, 2, 5, 5), {}),
    ("the kernel spans 9 elements", (1, 2, 4, 4), (3, 2, 5, 5), {"padding": 2, "dilation": 2}),
    ("multiple of groups=3", (1, 4, 5, 5), (3, 1, 3, 3), {"groups": 3}),
    ("multiple of groups=2", (1, 4, 5, 5), (3, 2, 3, 3), {"groups": 2}),
    ("weight has 4 input channels, expected 2", (1, 4, 5, 5), (4, 4, 3, 3), {"groups": 2}),
    ("groups must be at least 1", (1, 4, 5, 5), (4, 4, 3, 3), {"groups": 0}),
    ("stride must be at least 1, got \\(0, 1\\)", (1, 4, 5, 5), (4, 4, 3, 3), {"stride": (0, 1)}),
    ("dilation must be at least 1", (1, 4, 5, 5), (4, 4, 3, 3), {"dilation": 0}),
    ("padding must be at least 0", (1, 4, 5, 5), (4, 4, 3, 3), {"padding": -1}),
    ("x must have shape \\(N, C, H, W\\)", (4, 5, 5), (4, 4, 3, 3), {}),
    ("weight must have shape", (1, 4, 5, 5), (4, 4, 3), {}),
    ("at least one element", (1, 4, 5, 5), (4, 4, 0, 3), {}),
    ("stride must be an integer or a pair", (1, 4, 5, 5), (4, 4, 3, 3), {"stride": (1, 2, 3)}),
    ("needs stride 1", (1, 4, 5, 5), (4, 4, 3, 3), {"padding": "same", "stride": 2}),
    ("'same' or 'valid'", (1, 4, 5, 5), (4, 4, 3, 3), {"padding": "full"}),
    ("precision must be", (1, 4, 5, 5), (4, 4, 3, 3), {"precision": "low"}),
    ("activation must be", (1, 4, 5, 5), (4, 4, 3, 3), {"activation": "swish"}),
]


@pytest.mark.parametrize(("message", "x", "w", "options"), BAD, ids=[row[0] for row in BAD])
def test_bad_geometry_is_an_error(
    message: str, x: tuple[int, ...], w: tuple[int, ...], options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=f"conv2d: .*{message}"):
        tw.conv2d(drawn(*x), drawn(*w), **options)


def test_gradients_of_another_shape_are_refused() -> None:
    x, w = drawn(1, 2, 5, 5), drawn(3, 2, 3, 3)
    with pytest.raises(ValueError, match="dy has shape"):
        tw.conv2d_backward(drawn(1, 3, 4, 4), x, w)
    with pytest.raises(ValueError, match="bias must have shape"):
        tw.conv2d(x, w, drawn(2))
    with pytest.raises(TypeError, match="weight is float64 but x is float32"):
        tw.conv2d(x, w.astype(np.float64))


# --- the layer --------------------------------------------------------------------------------


def test_the_layer_checks_its_sizes_and_prints_them() -> None:
    with pytest.raises(ValueError, match="multiple of groups=2"):
        nn.Conv2d(3, 4, 3, groups=2)
    with pytest.raises(ValueError, match="padding_mode"):
        nn.Conv2d(3, 4, 3, padding_mode="reflect")
    with pytest.raises(ValueError, match="padding must be at least 0"):
        nn.Conv2d(3, 4, 3, padding=-1)
    with pytest.raises(ValueError, match="needs stride 1"):
        nn.Conv2d(3, 4, 3, stride=2, padding="same")
    with pytest.raises(ValueError, match="kernel_size must be at least 1"):
        nn.Conv2d(3, 4, 0)
    layer = nn.Conv2d(4, 6, (3, 5), 2, 1, groups=2, bias=False)
    expected = "4, 6, kernel_size=(3, 5), stride=(2, 2), padding=(1, 1), groups=2, bias=False"
    assert layer.extra_repr() == expected
