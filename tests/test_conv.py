"""Convolutions: values, gradients, bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference.conv as ref
import thalweg as tw
from conv_table import LAYOUTS, cases, drawn, run_all
from gradcheck import check_gradient, check_second_derivative
from thalweg import _core, nn

Array = ref.Array


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
