"""Our optimizers beside torch.optim: the same numbers, on NumPy arrays and on torch's tensors."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from optim_table import Options, Row, variants
from thalweg import optim

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

every_shared_variant = pytest.mark.parametrize(("row", "options"), variants(shared_only=True))


@pytest.fixture(autouse=True)
def torch_counts_in_float64() -> Iterator[None]:
    """torch keeps NAdam's product of the mu in its default dtype, whatever the parameters' is."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def peer(row: Row, params: Any, options: Options) -> Any:
    return getattr(torch.optim, row.make.__name__)(params, **options)


@every_shared_variant
def test_thousand_steps_agree_to_1e_13(row: Row, options: Options) -> None:
    rng = np.random.default_rng(0)
    ours = [rng.standard_normal((4, 3)), rng.standard_normal(5)]
    theirs = [torch.tensor(p) for p in ours]
    opt, torch_opt = row.make(ours, **options), peer(row, theirs, options)
    for _ in range(1000):
        grads = [rng.standard_normal(p.shape) for p in ours]
        opt.step(grads)
        for p, g in zip(theirs, grads, strict=True):
            p.grad = torch.from_numpy(g)
        torch_opt.step()
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p, q.numpy(), rtol=1e-13, atol=1e-13 * np.abs(p).max())


@every_shared_variant
def test_torch_model_trained_in_place_follows_torch(row: Row, options: Options) -> None:
    torch.manual_seed(0)
    ours = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    theirs = copy.deepcopy(ours)
    opt, torch_opt = row.make(ours.parameters(), **options), peer(row, theirs.parameters(), options)
    places = [p.data_ptr() for p in ours.parameters()]
    x, y = torch.randn(16, 5), torch.randn(16, 3)
    for _ in range(30):
        for model, optimizer in ((ours, opt), (theirs, torch_opt)):
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()
    assert [p.data_ptr() for p in ours.parameters()] == places
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(p.detach(), q.detach(), rtol=1e-9, atol=1e-12)


@every_shared_variant
def test_state_of_torch_is_continued(row: Row, options: Options) -> None:
    rng = np.random.default_rng(0)
    tensor = torch.tensor(rng.standard_normal((3, 4)))
    torch_opt = peer(row, [tensor], options)
    for _ in range(4):
        tensor.grad = torch.tensor(rng.standard_normal((3, 4)))
        torch_opt.step()
    array = tensor.numpy().copy()
    opt = row.make([array], **options)
    opt.load_state_dict(torch_opt.state_dict())
    for _ in range(4):
        tensor.grad = torch.tensor(rng.standard_normal((3, 4)))
        torch_opt.step()
        opt.step([tensor.grad])
    np.testing.assert_allclose(array, tensor.numpy(), rtol=1e-12)


@every_shared_variant
def test_names_of_states_are_those_of_torch(row: Row, options: Options) -> None:
    tensor, array = torch.ones(3), np.ones(3)
    tensor.grad = torch.ones(3)
    torch_opt, opt = peer(row, [tensor], options), row.make([array], **options)
    torch_opt.step()
    opt.step([np.ones(3)])
    theirs = {k for k, v in torch_opt.state_dict()["state"].get(0, {}).items() if v is not None}
    assert theirs <= opt.state_dict()["state"][0].keys()


@every_shared_variant
def test_defaults_are_those_of_torch(row: Row, options: Options) -> None:
    ours = row.make([np.ones(1)], **options).defaults
    theirs = peer(row, [torch.ones(1)], options).defaults
    for name in ours.keys() & theirs.keys():
        assert ours[name] == theirs[name], name


def test_clipping_equals_clip_grad_norm() -> None:
    rng = np.random.default_rng(0)
    ours = [rng.standard_normal(6), rng.standard_normal((2, 2))]
    theirs = [torch.tensor(p) for p in ours]
    grads = [rng.standard_normal(p.shape) for p in ours]
    for p, g in zip(theirs, grads, strict=True):
        p.grad = torch.tensor(g)
    norm = torch.nn.utils.clip_grad_norm_(theirs, 0.5)
    torch.optim.SGD(theirs, lr=1.0).step()
    opt = optim.SGD(ours, lr=1.0, max_norm=0.5)
    opt.step(grads)
    assert opt.last_grad_norm == pytest.approx(float(norm), rel=1e-14)
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p, q.numpy(), rtol=1e-13)


def test_moved_parameter_is_followed() -> None:
    p = torch.nn.Parameter(torch.zeros(3))
    opt = optim.SGD([p], lr=1.0)
    p.grad = torch.ones(3)
    opt.step()
    p.data = torch.full((3,), 5.0)
    opt.step()
    assert p.tolist() == [4.0, 4.0, 4.0]


def test_average_weights_of_a_torch_model_are_swapped_in_and_out() -> None:
    p = torch.nn.Parameter(torch.ones(2))
    opt = optim.SGD([p], lr=0.5, ema_decay=0.5)
    p.grad = torch.ones(2)
    opt.step(zero_grad=True)
    assert p.grad.tolist() == [0.0, 0.0]
    with opt.swap_ema():
        assert p.tolist() == [0.75, 0.75]
    assert p.tolist() == [0.5, 0.5]


def test_dtype_that_the_kernels_lack_is_refused() -> None:
    for dtype in (torch.float8_e4m3fn, torch.int32, torch.complex64):
        with pytest.raises(TypeError, match="Adam: parameter 0"):
            optim.Adam([torch.ones(3).to(dtype)])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_parameters_of_torch_follow_float32_ones(dtype: Any) -> None:
    """The master takes the steps of a float32 parameter, and the parameter is its rounded value."""
    pytest.importorskip("ml_dtypes")
    exact = torch.nn.Parameter(torch.linspace(-1, 1, 700).to(dtype).float())
    half = torch.nn.Parameter(exact.detach().to(dtype))
    place, opt, other = half.data_ptr(), optim.AdamW([half], lr=1e-3), optim.AdamW([exact], lr=1e-3)
    for t in range(20):
        half.grad = torch.sin(torch.arange(700.0) + t).to(dtype)
        exact.grad = half.grad.float()
        opt.step(zero_grad=True)
        other.step()
        assert torch.equal(half, exact.to(dtype))
        assert not half.grad.any()
    assert half.data_ptr() == place
