"""Every layer equals its reference and PyTorch, and its gradients equal finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import thalweg as tw
from gradcheck import check_gradient, check_second_derivative
from layer_table import LAYERS, double, draw_input
from thalweg import nn


@pytest.mark.parametrize("name", list(LAYERS))
def test_layer_equals_reference(name: str) -> None:
    module, x = double(LAYERS[name]), draw_input(LAYERS[name])
    y = module(tw.Tensor(x))
    np.testing.assert_allclose(
        y, LAYERS[name].reference(x, module.state_dict()), rtol=1e-12, atol=1e-14
    )


@pytest.mark.parametrize("name", list(LAYERS))
def test_layer_gradients_equal_finite_differences(name: str) -> None:
    module, x = double(LAYERS[name]), draw_input(LAYERS[name])
    owners = [
        (m, key)
        for m in module.modules()
        for key in m._parameters
        if m._parameters[key] is not None
    ]

    def f(x: Any, *values: Any) -> Any:
        for (owner, key), value in zip(owners, values, strict=True):
            owner._parameters[key] = value
        return module(x)

    arrays = [x, *[parameter.data.copy() for parameter in module.parameters()]]
    check_gradient(f, arrays)
    check_second_derivative(f, arrays)


@pytest.mark.parametrize("name", list(LAYERS))
def test_layer_on_arrays_without_grad_equals_layer_on_tensors(name: str) -> None:
    module = LAYERS[name].make().eval()
    x = draw_input(LAYERS[name]).astype(np.float32)
    with tw.no_grad():
        y = module(x)
    assert y.dtype == np.float32
    np.testing.assert_array_equal(np.asarray(y), module(tw.Tensor(x)).data)


def torch_twin(torch: Any, name: str) -> tuple[nn.Module, Any]:
    make = LAYERS[name].torch
    assert make is not None
    ours, theirs = double(LAYERS[name]), make(torch).double()
    theirs.load_state_dict({k: torch.tensor(v) for k, v in ours.state_dict().items()})
    return ours, theirs


torch_rows = pytest.mark.parametrize("name", [n for n, layer in LAYERS.items() if layer.torch])


@pytest.mark.torch
@torch_rows
def test_state_keys_order_shapes_and_dtypes_are_torchs(name: str) -> None:
    torch = pytest.importorskip("torch")
    make = LAYERS[name].torch
    assert make is not None
    ours, theirs = LAYERS[name].make().state_dict(), make(torch).state_dict()
    assert [(k, v.shape, str(v.dtype)) for k, v in ours.items()] == [
        (k, tuple(v.shape), str(v.dtype).removeprefix("torch.")) for k, v in theirs.items()
    ]


@pytest.mark.torch
@torch_rows
def test_layer_equals_torch_in_training_and_evaluation(name: str) -> None:
    torch = pytest.importorskip("torch")
    ours, theirs = torch_twin(torch, name)
    for step in range(3):
        if step == 2:
            ours.eval()
            theirs.eval()
        x = draw_input(LAYERS[name]) * (step + 1) + step
        mine = tw.tensor(x, requires_grad=True)
        their = torch.tensor(x, requires_grad=True)
        y, expected = ours(mine), theirs(their)
        np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-11, atol=1e-13)
        seed = np.sin(np.arange(y.numel())).reshape(y.shape)
        y.backward(seed)
        expected.backward(torch.tensor(seed))
        np.testing.assert_allclose(mine.grad, their.grad.numpy(), rtol=1e-10, atol=1e-12)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(p.grad, q.grad.numpy(), rtol=1e-10, atol=1e-12)
    for (key, b), c in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        np.testing.assert_allclose(b, c.numpy(), rtol=1e-12, err_msg=key)


@pytest.mark.parametrize("name", list(LAYERS))
def test_layout_of_input_and_gradient_changes_no_bit(name: str) -> None:
    """A transposed input and a gradient broadcast from one number, as `y.sum()` sends back."""
    module, x = double(LAYERS[name]), draw_input(LAYERS[name])

    def run(x: np.ndarray, seed: np.ndarray) -> list[np.ndarray]:
        module.zero_grad()
        value = tw.Tensor(x, requires_grad=True)
        module(value).backward(seed)
        return [p.grad.data for p in (value, *module.parameters()) if p.grad is not None]

    shape = module(x).shape
    expected = run(x, np.ones(shape))
    for got, want in zip(
        run(np.asfortranarray(x), np.broadcast_to(1.0, shape)), expected, strict=True
    ):
        np.testing.assert_array_equal(got, want)
