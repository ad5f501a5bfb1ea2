"""Pooling refuses what makes no sense, and gives empty results for no samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pool_table import LAYOUTS, drawn, laid
from thalweg import _core

BAD = [
    ({"kernel": 0}, "kernel must be between 1"),
    ({"kernel": -2}, "kernel must be between 1"),
    ({"kernel": 2, "stride": 0}, "stride must be between 1"),
    (
        {"kernel": 2, "padding": 2},
        r"padding must be .* half the window \(1 of 2\), got 2",
    ),
    ({"kernel": 2, "padding": -1}, "padding must be"),
    ({"kernel": (7, 2)}, "the window's height is 7, but x with its padding has 6"),
    ({"kernel": (2, 12)}, "the window's width is 12, but x with its padding has 8"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
def test_bad_geometry_is_a_clear_error(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: {message}"):
        getattr(_core, name)(drawn((1, 2, 6, 8)), **options)


def test_other_bad_arguments_are_named() -> None:
    x = drawn((1, 2, 6, 8))
    with pytest.raises(ValueError, match="dilation must be between 1"):
        _core.max_pool2d(x, 2, dilation=0)
    with pytest.raises(ValueError, match="window 0 along the width sees padding alone"):
        _core.max_pool2d(drawn((1, 2, 6, 1)), 2, padding=(0, 1), dilation=(1, 2))
    with pytest.raises(ValueError, match="activation must be None or 'relu', got 'tanh'"):
        _core.max_pool2d(x, 2, activation="tanh")
    with pytest.raises(
        TypeError, match=r"kernel must be an int or a pair of ints, got \[1, 2, 3\]"
    ):
        _core.max_pool2d(x, [1, 2, 3])
    with pytest.raises(TypeError, match=r"stride must be an int or a pair of ints, got 1\.5"):
        _core.avg_pool2d(x, 2, 1.5)
    with pytest.raises(ValueError, match="x must have 4 dimensions"):
        _core.max_pool2d(x[0], 2)
    with pytest.raises(TypeError, match="x must be float32 or float64, got int64"):
        _core.avg_pool2d(x.astype(np.int64), 2)
    y, saved = _core.max_pool2d(x, 2)
    with pytest.raises(ValueError, match=r"dy has shape .* that of y"):
        _core.max_pool2d_backward(x, x, saved)
    with pytest.raises(TypeError, match="dy is float64 but x is float32"):
        _core.max_pool2d_backward(y.astype(np.float64), x, saved)
    with pytest.raises(ValueError, match="saved must be what max_pool2d returned"):
        _core.max_pool2d_backward(y, x, (saved[0][:, :1], *saved[1:]))
    with pytest.raises(ValueError, match="saved must be what max_pool2d returned"):
        _core.max_pool2d_backward(y, x, ())


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 0, 4, 4)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_samples_or_channels_give_empty_results(shape: tuple[int, ...], layout: str) -> None:
    x = laid(np.zeros(shape, np.float32), layout)
    y, saved = _core.max_pool2d(x, 2)
    assert y.shape == (*shape[:2], 2, 2)
    assert _core.max_pool2d_backward(y, x, saved).shape == shape
    assert _core.avg_pool2d_backward(_core.avg_pool2d(x, 2), x, 2).shape == shape


def test_no_rows_are_an_error() -> None:
    with pytest.raises(ValueError, match="the window's height is 2, but x with its padding has 0"):
        _core.max_pool2d(np.zeros((1, 2, 0, 4), np.float32), 2)
