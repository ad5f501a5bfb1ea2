"""Batch normalisation: bad arguments are named before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from batch_norm_table import Case, bits, normal
from thalweg import _core

F4 = np.float32
ONE_ARRAY = np.ones(3, F4)

# Arguments that replace the good ones, the error, and what its message says.
BAD_FORWARD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"x": np.ones((8, 3, 2), "i4")}, TypeError, "x must be float32 or float64, got int32"),
    ({"x": [[1.0]]}, TypeError, "x must be an array, got list"),
    ({"x": np.ones(3, F4)}, ValueError, "axis is 1, expected between -1 and 0"),
    ({"axis": 3}, ValueError, "axis is 3, expected between -3 and 2"),
    ({"x": np.ones((1, 3), F4), "residual": None}, ValueError,
     r"training needs more than one element per channel, x has shape \(1, 3\)"),
    ({"gamma": np.ones(4, F4)}, ValueError, r"gamma must have shape \(3,\), got \(4,\)"),
    ({"gamma": np.ones((1, 3), F4)}, ValueError, r"gamma must have shape \(3,\), got \(1, 3\)"),
    ({"beta": np.ones(3)}, TypeError, "beta is float64 but x is float32"),
    ({"residual": np.ones((8, 3), F4)}, ValueError,
     r"residual has shape \(8, 3\), expected \(8, 3, 2\) like x"),
    ({"residual": np.ones((8, 3, 2))}, TypeError, "residual is float64 but x is float32"),
    ({"running_mean": np.ones(2, F4)}, ValueError,
     r"running_mean must have shape \(3,\), got \(2,\)"),
    ({"running_var": np.ones(3)}, TypeError, "running_var is float64 but x is float32"),
    ({"running_var": None}, ValueError, "running_mean and running_var go together"),
    ({"running_mean": None, "running_var": None, "training": False}, ValueError,
     "evaluation needs running_mean and running_var, got None"),
    ({"running_var": np.broadcast_to(F4(1), 3)}, ValueError, "running_var is read-only"),
    ({"running_mean": np.lib.stride_tricks.as_strided(np.ones(3, F4), (3,), (0,))}, ValueError,
     "running_mean overlaps itself"),
    ({"running_mean": ONE_ARRAY, "running_var": ONE_ARRAY}, ValueError,
     "running_mean shares memory with running_var"),
    ({"running_mean": ONE_ARRAY, "gamma": ONE_ARRAY}, ValueError,
     "running_mean shares memory with gamma"),
    ({"momentum": 1.5}, ValueError, r"momentum must be in \[0, 1\], got 1.5"),
    ({"momentum": float("nan")}, ValueError, r"momentum must be in \[0, 1\], got nan"),
    ({"eps": -1e-5}, ValueError, "eps must be at least 0 and finite, got -1e-05"),
    ({"eps": float("inf")}, ValueError, "eps must be at least 0 and finite, got inf"),
    ({"activation": "swish"}, ValueError, "activation must be None or one of .* got 'swish'"),
    ({"activation": "gelu"}, ValueError, "activation 'gelu' cannot be fused"),
]  # fmt: skip


@pytest.mark.parametrize(("replace", "error", "message"), BAD_FORWARD)
def test_bad_arguments_are_named_and_nothing_is_written(
    replace: dict[str, Any], error: type[Exception], message: str
) -> None:
    case = Case((8, 3, 2), 1, "float32")
    arguments = {k: v for k, v in vars(case).items() if k not in ("axis", "dtype", "n", "dy")}
    arguments |= {"training": True, **replace}
    arrays = [a for a in arguments.values() if isinstance(a, np.ndarray)]
    before = bits(*arrays)
    with pytest.raises(error, match=f"^batch_norm: {message}"):
        _core.batch_norm(**arguments)
    assert bits(*arrays) == before


X = normal(8, 3, dtype="float32")
SAVED = _core.batch_norm(X, None, None, None, None, training=True)[1]
MEAN, RSTD = SAVED[:2]

BAD_OTHERS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: _core.batch_norm_backward(X[:4], X, None, SAVED), ValueError,
     r"batch_norm_backward: dy has shape \(4, 3\), expected \(8, 3\) like x"),
    (lambda: _core.batch_norm_backward(X.astype("f8"), X, None, SAVED), TypeError,
     "batch_norm_backward: dy is float64 but x is float32"),
    (lambda: _core.batch_norm_backward(X, X, np.ones(2, F4), SAVED), ValueError,
     r"batch_norm_backward: gamma must have shape \(3,\)"),
    (lambda: _core.batch_norm_backward(X[:, :2], X[:, :2], None, SAVED), ValueError,
     r"batch_norm_backward: saved mean must have shape \(2,\), got \(3,\)"),
    (lambda: _core.batch_norm_backward(X, X, None, SAVED[:2]), ValueError,
     "batch_norm_backward: saved must be what batch_norm returned, got a tuple of 2"),
    (lambda: _core.batch_norm_backward(X, X, None, (MEAN, RSTD, True, "relu", None, False)),
     ValueError,
     "batch_norm_backward: saved must be what batch_norm returned, it lacks the output"),
    (lambda: _core.batch_norm_statistics(np.ones((2, 3), "i8")), TypeError,
     "batch_norm_statistics: x must be float32 or float64, got int64"),
    (lambda: _core.batch_norm_apply(X, None, None, MEAN[:2], RSTD), ValueError,
     r"batch_norm_apply: mean must have shape \(3,\), got \(2,\)"),
    (lambda: _core.batch_norm_apply(X, None, None, MEAN, np.ones(3, "i4")), TypeError,
     "batch_norm_apply: rstd is int32 but x is float32"),
    (lambda: _core.batch_norm_backward_sums(X, X, MEAN, RSTD[:1]), ValueError,
     r"batch_norm_backward_sums: rstd must have shape \(3,\), got \(1,\)"),
    (lambda: _core.batch_norm_backward_apply(X, X, None, MEAN, RSTD, MEAN, MEAN[:1], 8), ValueError,
     r"batch_norm_backward_apply: sum_dy_xhat must have shape \(3,\), got \(1,\)"),
    (lambda: _core.batch_norm_backward_apply(X, X, None, MEAN, RSTD, MEAN, MEAN, 0), ValueError,
     "batch_norm_backward_apply: n must be the number of elements per channel over .*, got 0"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), BAD_OTHERS)
def test_bad_arguments_of_the_other_calls_are_named(
    call: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()
