"""The module system: registration, traversal, state, modes; and the errors of nn."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import thalweg as tw
from thalweg import nn


def build(library: Any) -> Any:
    """A nested model with a shared layer, in our library or in torch."""
    shared = library.Linear(3, 3)
    return library.Sequential(
        library.Linear(3, 3),
        library.Sequential(shared, library.ReLU(), library.BatchNorm1d(3)),
        shared,
    )


@pytest.mark.torch
def test_traversal_and_state_of_nested_shared_modules_are_torchs() -> None:
    torch = pytest.importorskip("torch")
    ours, theirs = build(nn), build(torch.nn)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    assert [n for n, _ in ours.named_buffers()] == [n for n, _ in theirs.named_buffers()]
    assert [n for n, _ in ours.named_modules()] == [n for n, _ in theirs.named_modules()]
    names: tuple[list[str], list[str]] = ([], [])
    ours.apply(lambda m: names[0].append(type(m).__name__))
    theirs.apply(lambda m: names[1].append(type(m).__name__))
    assert names[0] == names[1]


@pytest.mark.torch
def test_torch_state_loads_and_gives_the_same_outputs() -> None:
    torch = pytest.importorskip("torch")
    ours, theirs = build(nn), build(torch.nn)
    ours.load_state_dict(theirs.state_dict())
    x = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    expected = theirs(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(ours(tw.Tensor(x)), expected, rtol=1e-5, atol=1e-6)


def test_modes_gradients_and_dtypes_reach_every_module() -> None:
    model = build(nn)
    assert all(m.training for m in model.modules())
    model.eval()
    assert not any(m.training for m in model.modules())
    model.train()
    model(tw.ones(4, 3)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    model.zero_grad(set_to_none=False)
    assert all(not p.grad.data.any() for p in model.parameters())
    model.zero_grad()
    assert all(p.grad is None for p in model.parameters())
    assert {p.dtype for p in model.double().parameters()} == {np.dtype(np.float64)}
    assert {str(b.dtype) for b in model.float().buffers()} == {"float32", "int64"}
    model.requires_grad_(False)
    assert not model(tw.ones(4, 3)).requires_grad


class Custom(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(np.ones(2, np.float32))
        self.register_parameter("shift", None)
        self.register_buffer("count", np.zeros(()))
        self.layers = nn.ModuleList([nn.Linear(2, 2), nn.ReLU()])
        self.note = "plain"

    def forward(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return x * self.scale


def test_attributes_are_registered_replaced_and_removed() -> None:
    module = Custom()
    assert list(module.state_dict()) == ["scale", "count", "layers.0.weight", "layers.0.bias"]
    module.scale = nn.Parameter(np.zeros(2, np.float32))
    module.shift = nn.Parameter(np.ones(1, np.float32))
    module.count = np.ones(())
    assert module.state_dict()["count"] == 1
    assert [name for name, _ in module.named_parameters()][:2] == ["scale", "shift"]
    del module.shift
    assert not hasattr(module, "shift")
    module.layers = None
    assert list(module.children()) == []
    with pytest.raises(TypeError, match="scale is a parameter, got float"):
        module.scale = 1.0
    with pytest.raises(AttributeError, match="Custom has no attribute 'absent'"):
        _ = module.absent


def test_a_copied_module_shares_nothing() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    twin = copy.deepcopy(model)
    twin(tw.ones(3, 2))
    twin[0].weight.data += 1
    assert model[1].num_batches_tracked == 0
    assert not np.array_equal(model[0].weight.data, twin[0].weight.data)
    assert len(list(twin.parameters())) == 4


def test_repr_shows_the_structure() -> None:
    assert repr(nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.ReLU()))) == (
        "Sequential(\n  (0): Linear(2, 3, bias=True)\n  (1): Sequential(\n    (0): ReLU()\n  )\n)"
    )


def test_sequential_is_indexed_sliced_and_extended() -> None:
    model = nn.Sequential({"first": nn.Linear(2, 3), "second": nn.ReLU()})
    assert len(model) == 2 and list(model)[1] is model[1]
    assert list(model.state_dict()) == ["first.weight", "first.bias"]
    part = model[:1]
    assert isinstance(part, nn.Sequential) and part[0] is model[0]
    model.append(nn.Linear(3, 1))
    assert model(tw.ones(4, 2)).shape == (4, 1)


def test_load_state_dict_copies_into_place() -> None:
    model, source = nn.Linear(2, 3), nn.Linear(2, 3)
    memory = model.weight.data
    assert model.load_state_dict(source.state_dict()) == ([], [])
    assert model.weight.data is memory
    np.testing.assert_array_equal(memory, source.weight.data)
    keys = model.load_state_dict({"weight": memory, "other": memory}, strict=False)
    assert keys == (["bias"], ["other"])


GOOD = {"weight": np.ones((3, 2), np.float32), "bias": np.ones(3, np.float32)}
LOAD_ERRORS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "missing": ({"weight": GOOD["weight"]}, KeyError, "missing.*bias"),
    "unexpected": ({**GOOD, "more": GOOD["bias"]}, KeyError, "unexpected.*more"),
    "shape": ({**GOOD, "bias": np.ones(4, np.float32)}, ValueError, r"bias.*\(3,\), got \(4,\)"),
    "dtype": ({**GOOD, "bias": np.ones(3)}, TypeError, "bias must be float32, got float64"),
}


@pytest.mark.parametrize("name", list(LOAD_ERRORS))
def test_a_refused_state_changes_nothing(name: str) -> None:
    state, kind, message = LOAD_ERRORS[name]
    model = nn.Linear(2, 3)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(kind, match=message):
        model.load_state_dict(state)
    for key, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[key])


X = np.zeros((4, 3), np.float32)


class Forgetful(nn.Module):
    def __init__(self) -> None:
        self.layer = nn.ReLU()


ERRORS: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "Linear size": (lambda: nn.Linear(0, 3), ValueError, "in_features must be at least 1, got 0"),
    "Linear dtype": (lambda: nn.Linear(2, 3, dtype=np.float16), TypeError, "got float16"),
    "Linear input": (lambda: nn.Linear(2, 3)(X), ValueError, r"\(4, 3\)"),
    "Linear input dtype": (
        lambda: nn.Linear(3, 3)(X.astype(np.float64)),
        TypeError,
        "float64.*float32|float32.*float64",
    ),
    "BlockLinear groups": (
        lambda: nn.BlockLinear(5, 4, 2),
        ValueError,
        "in_features must be a multiple of groups=2, got 5",
    ),
    "BlockLinear input": (lambda: nn.BlockLinear(4, 4, 2)(X), ValueError, r"2 \* 2 = 4.*\(4, 3\)"),
    "BatchNorm size": (lambda: nn.BatchNorm1d(0), ValueError, "num_features.*got 0"),
    "BatchNorm eps": (lambda: nn.BatchNorm1d(1, eps=0), ValueError, "eps.*got 0"),
    "BatchNorm momentum": (lambda: nn.BatchNorm1d(1, momentum=2), ValueError, "momentum.*got 2"),
    "BatchNorm2d rank": (lambda: nn.BatchNorm2d(3)(X), ValueError, r"4 axes, got shape \(4, 3\)"),
    "LayerNorm size": (lambda: nn.LayerNorm(0), ValueError, "normalized_shape.*got 0"),
    "LayerNorm input": (lambda: nn.LayerNorm(4)(X), ValueError, r"\(?[34],?\)?"),
    "LeakyReLU slope": (lambda: nn.LeakyReLU(-1), ValueError, "negative_slope.*got -1"),
    "Dropout p": (lambda: nn.Dropout(1), ValueError, r"\[0, 1\), got 1"),
    "reduction": (lambda: nn.MSELoss("avg"), ValueError, "mean, sum, none, batchmean, got 'avg'"),
    "class reduction": (lambda: nn.NLLLoss("batchmean"), ValueError, "mean, sum, none, got"),
    "smoothing": (
        lambda: nn.CrossEntropyLoss(label_smoothing=2),
        ValueError,
        r"label_smoothing must be in \[0, 1\], got 2",
    ),
    "huber delta": (lambda: nn.HuberLoss(delta=0), ValueError, "delta must be positive, got 0"),
    "mse shapes": (lambda: nn.MSELoss()(X, X[0]), ValueError, r"\(4, 3\), got \(3,\)"),
    "mse empty": (lambda: nn.MSELoss()(X[:0], X[:0]), ValueError, r"shape \(0, 3\)"),
    "bce target": (lambda: nn.BCEWithLogitsLoss()(X, X + 2), ValueError, r"lie in \[0, 1\]"),
    "Concat": (lambda: nn.Concat(), ValueError, "at least one branch"),
    "Sequential": (lambda: nn.Sequential(3), TypeError, "0 must be a Module, got int"),
    "to cuda": (
        lambda: nn.Linear(1, 1).to("cuda"),
        RuntimeError,
        r"Module.to\('cuda'\) needs the GPU",
    ),
    "to int": (lambda: nn.Linear(1, 1).to(np.int32), TypeError, "got int32"),
    "forward": (lambda: nn.Module()(X), NotImplementedError, "does not define forward"),
    "super": (Forgetful, RuntimeError, r"super\(\).__init__\(\)"),
    "dotted name": (lambda: nn.Module().register_buffer("a.b", X), ValueError, "'a.b'"),
    "gain": (lambda: nn.init.calculate_gain("swish"), ValueError, "leaky_relu, got 'swish'"),
    "fans": (lambda: nn.init.xavier_normal_(tw.ones(3)), ValueError, r"2 axes, got shape \(3,\)"),
    "mode": (
        lambda: nn.init.kaiming_normal_(tw.ones(3, 3), mode="in"),
        ValueError,
        "'fan_in' or 'fan_out', got 'in'",
    ),
    "sparsity": (lambda: nn.init.sparse_(tw.ones(3, 3), 2), ValueError, "got 2"),
}


@pytest.mark.parametrize("name", list(ERRORS))
def test_errors_name_what_was_expected_and_what_came(name: str) -> None:
    call, kind, message = ERRORS[name]
    with pytest.raises(kind, match=message):
        call()
