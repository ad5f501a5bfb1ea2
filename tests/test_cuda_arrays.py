"""Arrays on a GPU: CuPy in, CuPy out, in place where asked; and clear errors where it cannot be."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import device
import fake_cupy
import thalweg as tw
from fake_cupy import asarray
from thalweg import _core

Array = npt.NDArray[Any]


@pytest.fixture(autouse=True)
def cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    """GPU arrays are the fake's, and the emulated table computes on them, not on NumPy's."""
    if device.table() is None:
        pytest.skip("no CUDA table: run `make cuda-emulated`")
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy.module())
    _core.install_cuda(device.table())


def drawn(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_device_arrays_in_give_device_arrays_out() -> None:
    a, b = drawn(30, 20), drawn(20, 7, seed=1)
    result = _core.matmul(asarray(a), asarray(b), precision="strict")
    assert isinstance(result, fake_cupy.ndarray)
    np.testing.assert_array_equal(result.get(), _core.matmul(a, b, precision="strict"))


def test_views_of_any_layout_need_no_copy() -> None:
    a, b, out = drawn(20, 30), drawn(14, 40, seed=1), asarray(np.zeros((30, 14), np.float32))
    strided = asarray(b)[:, ::-2]
    returned = _core.matmul(asarray(a).T, strided.T, out=out, precision="strict")
    assert returned is out
    np.testing.assert_array_equal(out.get(), _core.matmul(a.T, b[:, ::-2].T, precision="strict"))


def test_every_family_takes_device_arrays() -> None:
    x, y = drawn(12, 5), drawn(12, 5, seed=1)
    dx, dy = asarray(x), asarray(y)
    target = np.arange(12) % 5
    pairs = [
        (_core.add(dx, dy), _core.add(x, y)),
        (_core.tanh(dx), _core.tanh(x)),
        (_core.sum(dx, 0), _core.sum(x, 0)),
        (_core.softmax(dx), _core.softmax(x)),
        (_core.dropout(dx, 0.5, seed=3), _core.dropout(x, 0.5, seed=3)),
        (
            _core.softmax_cross_entropy(dx, asarray(target))[1],
            _core.softmax_cross_entropy(x, target)[1],
        ),
    ]
    for ours, expected in pairs:
        np.testing.assert_array_equal(ours.get(), expected)
    normal, _ = _core.batch_norm(dx, None, None, None, None, training=True)
    expected, _ = _core.batch_norm(x, None, None, None, None, training=True)
    np.testing.assert_allclose(normal.get(), expected, rtol=1e-5, atol=1e-6)


def test_optimizer_steps_on_device_arrays_in_place() -> None:
    weights = [drawn(40, 30), drawn(7, seed=1)]
    on_device = [asarray(w) for w in weights]
    ours = tw.optim.AdamW(on_device, lr=0.1, max_norm=1.0, ema_decay=0.9)
    expected = tw.optim.AdamW(weights, lr=0.1, max_norm=1.0, ema_decay=0.9)
    for t in range(3):
        grads = [drawn(*w.shape, seed=10 + t) for w in weights]
        ours.step([asarray(g) for g in grads])
        expected.step(grads)
        assert float(ours.last_grad_norm.get()) == expected.last_grad_norm  # type: ignore[union-attr]
    for a, b in zip(on_device, weights, strict=True):
        np.testing.assert_array_equal(a.get(), b)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: _core.add(asarray(x), x), RuntimeError, "add: b is in host memory but a is not"),
        (
            lambda x: _core.matmul(x, asarray(x.T)),
            RuntimeError,
            "matmul: b is on a GPU but a is not",
        ),
        (lambda x: _core.exp(asarray(x.astype(np.int32))), TypeError, "must be float32 or float64"),
        (lambda x: _core.exp(asarray(x.astype(">f4"))), TypeError, "x has dtype >f4"),
        (lambda x: _core.layer_norm(asarray(x), None, None), RuntimeError, "has no CUDA kernel"),
        (
            lambda x: _core.softmax_cross_entropy(asarray(x), asarray(np.array([0, 9]))),
            ValueError,
            r"target\[1\] is 9, expected a class in \[0, 3\)",
        ),
    ],
)
def test_bad_device_arguments_are_named(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(drawn(2, 3))


def test_read_only_outputs_are_refused() -> None:
    x, out = asarray(drawn(3)), asarray(drawn(3))
    out.host.flags.writeable = False
    with pytest.raises(ValueError, match="out is read-only"):
        _core.exp(x, out=out)
