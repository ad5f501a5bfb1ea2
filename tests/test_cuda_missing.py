"""Where no GPU can be used, asking for one is an error that says what is missing."""

from __future__ import annotations

import sys
import types
from typing import Any

import numpy as np
import pytest

import thalweg as tw
from thalweg import _core, cuda

pytestmark = pytest.mark.skipif(_core.has_cuda(), reason="a CUDA table is loaded")


class DeviceArray:
    """Claims to lie on a GPU."""

    __cuda_array_interface__ = {  # noqa: RUF012  a dict by definition
        "shape": (2, 2),
        "typestr": "<f4",
        "data": (4096, False),
        "version": 3,
        "strides": None,
    }


@pytest.fixture
def no_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "thalweg._cuda", None)


def pretend(monkeypatch: pytest.MonkeyPatch, trouble: str | None) -> None:
    extension: Any = types.ModuleType("thalweg._cuda")
    extension.problem = lambda: trouble
    monkeypatch.setitem(sys.modules, "thalweg._cuda", extension)


CALLS = [
    (lambda: _core.matmul(DeviceArray(), DeviceArray()), "matmul: a, a CUDA array, needs the GPU"),
    (lambda: tw.nn.Linear(2, 2).to("cuda"), r"Module.to\('cuda'\) needs the GPU"),
    (lambda: tw.ones(2).to("cuda"), r"Tensor.to\('cuda'\) needs the GPU"),
]


@pytest.mark.usefixtures("no_extension")
@pytest.mark.parametrize(("call", "message"), CALLS)
def test_a_build_without_cuda_says_so(call: Any, message: str) -> None:
    with pytest.raises(RuntimeError, match=message + ", but this build has no CUDA half"):
        call()


@pytest.mark.parametrize(("call", "message"), CALLS)
def test_a_machine_without_a_driver_says_so(
    monkeypatch: pytest.MonkeyPatch, call: Any, message: str
) -> None:
    pretend(monkeypatch, "CUDA driver version is insufficient")
    with pytest.raises(RuntimeError, match=message + ", but no NVIDIA driver with a GPU was found"):
        call()


def test_missing_cupy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="CuPy, which owns the GPU's memory, is missing"):
        cuda.load("this test")


def test_moving_to_the_host_changes_nothing_that_is_there() -> None:
    model, x = tw.nn.Linear(2, 2), np.ones(3)
    before = [p.data for p in model.parameters()]
    assert all(p.data is data for p, data in zip(model.to("cpu").parameters(), before, strict=True))
    assert cuda.to_host(x) is x
    assert not cuda.is_available()
