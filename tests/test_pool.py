"""Pooling: references, exact identities, gradients, PyTorch's results."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import reference.pool as ref
from gradcheck import check_gradient, check_second_derivative
from pool_table import (
    LAYOUTS,
    Array,
    drawn,
    everything,
    laid,
    max_pool,
    mean_options,
    rows,
    same_bits,
)
from reference.pool import Window
from thalweg import _core
from thalweg import functional as F

# --- against the references -----------------------------------------------------------------------


def check_max(x: Array, window: Window) -> None:
    y, saved = max_pool(x, window)
    np.testing.assert_array_equal(y, ref.max_pool(x, window))
    dy = np.round(8 * drawn(y.shape, x.dtype, 1))  # integers, so that sums are exact
    expected = ref.max_pool_gradient(dy, x, window)
    np.testing.assert_array_equal(_core.max_pool2d_backward(dy, x, saved), expected)


def check_mean(x: Array, window: Window, padding: bool) -> None:
    options, eps = mean_options(window, padding), float(np.finfo(x.dtype).eps)
    taps = window.kernel[0] * window.kernel[1]
    y = _core.avg_pool2d(x, *options)
    atol = taps * eps * np.abs(x).max(initial=0)
    np.testing.assert_allclose(y, ref.avg_pool(x, window, padding), rtol=0, atol=atol)
    dy = drawn(y.shape, x.dtype, 1)
    expected = ref.avg_pool_gradient(dy, x, window, padding)
    dx = _core.avg_pool2d_backward(dy, x, *options)
    np.testing.assert_allclose(dx, expected, rtol=0, atol=taps * eps * np.abs(dy).max(initial=0))


@rows
@pytest.mark.parametrize("layout", LAYOUTS)
def test_equals_reference(isa: str, shape: tuple[int, ...], window: Window, layout: str) -> None:
    if shape == (1, 1, 300, 130) and isa != _core.available_isas()[-1]:
        shape = (1, 1, 60, 130)
    x = laid(drawn(shape), layout)
    check_max(x, window)
    if window.dilation == (1, 1):
        check_mean(x, window, True)
        check_mean(x, window, False)


@st.composite
def geometries(draw: Any) -> tuple[tuple[int, ...], Window]:
    pairs = []
    for low, high in ((1, 4), (1, 4), (0, 2), (1, 3)):
        pairs.append((draw(st.integers(low, high)), draw(st.integers(low, high))))
    window = Window(*pairs, draw(st.booleans()))
    shape = tuple(draw(st.integers(1, high)) for high in (2, 20, 12, 40))
    for axis in range(2):
        k, _, p, d = (pair[axis] for pair in window[:4])
        assume(p <= (d * (k - 1) + 1) // 2 and shape[2 + axis] + 2 * p > d * (k - 1))
        seen = [
            window.seen(shape[2 + axis], axis, o) for o in range(window.out(shape[2 + axis], axis))
        ]
        assume(all(seen))
    return shape, window


@given(geometry=geometries(), layout=st.sampled_from(LAYOUTS), dtype=st.sampled_from(["f4", "f8"]))
def test_any_geometry_equals_reference(
    geometry: tuple[tuple[int, ...], Window], layout: str, dtype: str
) -> None:
    shape, window = geometry
    x = laid(drawn(shape, dtype), layout)
    check_max(x, window)
    plain = window._replace(dilation=(1, 1))
    if all(plain.padding[i] <= plain.kernel[i] // 2 for i in range(2)):
        check_mean(x, plain, True)
        check_mean(x, plain, False)


# --- exact identities -----------------------------------------------------------------------------


@rows
def test_bits_do_not_depend_on_isa_threads_or_layout(
    shape: tuple[int, ...], window: Window
) -> None:
    x = drawn(shape)
    expected = everything(x, window, "planes")
    for isa, threads, layout in itertools.product(_core.available_isas(), (1, 2, 3), LAYOUTS):
        _core.use_isa(isa)
        _core.set_num_threads(threads)
        assert same_bits(everything(x, window, layout), expected), (isa, threads, layout)


@rows
def test_fused_relu_is_relu_after_pooling(shape: tuple[int, ...], window: Window) -> None:
    x = drawn(shape) - np.float32(0.5)
    x.flat[::7] = np.nan
    fused, saved = max_pool(x, window, activation="relu")
    y, plain = max_pool(x, window)
    dy = drawn(y.shape, seed=1)
    separate = _core.max_pool2d_backward(_core.relu_backward(dy, _core.relu(y)), x, plain)
    assert same_bits([fused, _core.max_pool2d_backward(dy, x, saved)], [_core.relu(y), separate])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_result_has_the_layout_of_x(layout: str) -> None:
    x = laid(drawn((2, 6, 8, 9)), layout)
    y, saved = _core.max_pool2d(x, 3, 2)
    inner = 1 if layout == "channels-last" else 3
    for result in (y, saved[0], _core.max_pool2d_backward(y, x, saved), _core.avg_pool2d(x, 2)):
        assert result.strides[inner] == result.itemsize


def test_strided_and_reversed_inputs_give_the_bits_of_copies() -> None:
    whole = drawn((4, 12, 20, 22))
    window = Window((3, 2), (2, 1), (1, 1))
    for view in (
        whole[::2, 1::3, ::-1, 2:],
        whole[..., ::2],
        whole[:, 3:9],
        whole.transpose(0, 3, 2, 1),
        laid(whole, "channels-last")[:, 2:8],
        laid(whole, "channels-last")[::-1, :, ::2, ::-1],
        np.broadcast_to(whole[:1], whole.shape),
    ):
        y, saved = max_pool(view, window)
        expected, kept = max_pool(view.copy(), window)
        dy = laid(drawn(y.shape, seed=1), "channels-last")[:, ::-1]
        got = [y, _core.max_pool2d_backward(dy, view, saved), _core.avg_pool2d(view, 3, 1, 1)]
        wanted = [
            expected,
            _core.max_pool2d_backward(dy, view.copy(), kept),
            _core.avg_pool2d(view.copy(), 3, 1, 1),
        ]
        assert same_bits(got, wanted)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_first_of_equals_and_last_nan_get_the_gradient(layout: str) -> None:
    nan, inf = np.nan, np.inf
    cases = [
        ([1, 1, 1, 1], 0), ([0, 2, 2, 1], 1), ([-0.0, 0, 0, 0], 0), ([1, nan, 3, 2], 1),
        ([nan, 5, nan, 9], 2), ([-inf] * 4, 0), ([-inf, -inf, 0, -inf], 2), ([inf, 1, inf, nan], 3),
    ]  # fmt: skip
    x = np.array([values for values, _ in cases], np.float32).reshape(1, -1, 2, 2)
    x = np.tile(x, (1, 3, 1, 1))  # more channels than a vector holds
    y, saved = _core.max_pool2d(laid(x, layout), 2)
    dx = _core.max_pool2d_backward(np.ones_like(y), laid(x, layout), saved)
    for i, (_, place) in enumerate(cases * 3):
        np.testing.assert_array_equal(
            dx[0, i].ravel(), np.arange(4) == place, err_msg=str(cases[i % 8])
        )


def test_padding_is_never_chosen() -> None:
    x = np.full((1, 3, 5, 6), -np.inf, np.float32)
    for layout in LAYOUTS:
        y, saved = _core.max_pool2d(laid(x, layout), 3, 1, 1)
        assert np.all(y == -np.inf)
        dx = _core.max_pool2d_backward(np.ones_like(y), laid(x, layout), saved)
        assert dx.sum() == y.size


def test_infinite_gradients_stay_where_they_belong() -> None:
    x = drawn((1, 2, 6, 20))
    y, saved = _core.max_pool2d(x, 3, 2)
    dy = np.zeros_like(y)
    dy[0, 0, 1, 3] = np.inf
    dx = _core.max_pool2d_backward(dy, x, saved)
    assert np.count_nonzero(dx) == 1
    assert not np.isnan(dx).any()


def test_global_average_is_the_mean_of_each_plane() -> None:
    x = drawn((3, 5, 7, 6))
    for layout in LAYOUTS:
        y = F.global_avg_pool2d(laid(x, layout))
        assert same_bits([y], [_core.avg_pool2d(x, (7, 6))])
        np.testing.assert_allclose(y, x.mean((2, 3), np.float64, keepdims=True), atol=1e-6)
    with pytest.raises(ValueError, match="kernel must be between 1"):
        F.global_avg_pool2d(x[..., :0])


# --- gradients ------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", [None, "relu"])
def test_max_gradients_equal_finite_differences(activation: str | None) -> None:
    x = np.random.default_rng(0).permutation(np.linspace(-2, 2, 60) + 0.0123).reshape(1, 2, 5, 6)
    for window in (
        Window((2, 2), (2, 2)),
        Window((3, 2), (1, 2), (1, 1)),
        Window((2, 2), (1, 1), (1, 0), (2, 1)),
    ):
        check_gradient(lambda x, w=window: F.max_pool2d(x, *w, activation=activation)[0], [x])
        check_second_derivative(lambda x, w=window: F.max_pool2d(x, *w)[0].square(), [x])


@pytest.mark.parametrize("padding", [True, False])
def test_mean_gradients_equal_finite_differences(padding: bool) -> None:
    x = np.random.default_rng(0).standard_normal((2, 2, 5, 6))
    for window in (Window((2, 2), (2, 2)), Window((3, 2), (1, 2), (1, 1), ceil_mode=True)):
        check_gradient(lambda x, w=window: F.avg_pool2d(x, *mean_options(w, padding)), [x])
        check_second_derivative(
            lambda x, w=window: F.avg_pool2d(x, *mean_options(w, padding)).square(), [x]
        )


# --- PyTorch --------------------------------------------------------------------------------------


@pytest.mark.torch
@rows
def test_equals_torch(shape: tuple[int, ...], window: Window) -> None:
    torch = pytest.importorskip("torch")
    f = torch.nn.functional
    x = drawn(shape)
    x.flat[::11] = np.nan
    theirs = torch.tensor(x, requires_grad=True)
    y, saved = max_pool(x, window)
    expected = f.max_pool2d(theirs, *window[:4], ceil_mode=window.ceil_mode)
    dy = np.round(8 * drawn(y.shape, seed=1))
    expected.backward(torch.tensor(dy))
    np.testing.assert_array_equal(y, expected.detach().numpy())
    np.testing.assert_array_equal(_core.max_pool2d_backward(dy, x, saved), theirs.grad.numpy())
    if window.dilation != (1, 1):
        return
    x = np.nan_to_num(x)
    for padding in (True, False):
        theirs = torch.tensor(x, requires_grad=True)
        expected = f.avg_pool2d(theirs, *window[:3], window.ceil_mode, padding)
        expected.backward(torch.tensor(dy))
        options = mean_options(window, padding)
        np.testing.assert_allclose(
            _core.avg_pool2d(x, *options), expected.detach().numpy(), rtol=1e-5, atol=1e-5
        )
        np.testing.assert_allclose(
            _core.avg_pool2d_backward(dy, x, *options), theirs.grad.numpy(), rtol=1e-5, atol=1e-5
        )
