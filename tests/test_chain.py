"""What a Sequential fuses has the bits of its modules called one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import thalweg as tw
from gradcheck import check_second_derivative
from thalweg import nn
from thalweg.backend import Array
from thalweg.nn.chain import chain

IMAGES = {
    "Conv2d": lambda: nn.Conv2d(4, 4, 3, padding=1),
    "BatchNorm2d": lambda: nn.BatchNorm2d(4),
    "MaxPool2d": lambda: nn.MaxPool2d(3, 1, 1),
    "ReLU": nn.ReLU,
    "Residual": lambda: nn.Residual(nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))),
    "Residual of ReLU": lambda: nn.Residual(nn.Sequential(nn.BatchNorm2d(4), nn.ReLU())),
    "Residual with shortcut": lambda: nn.Residual(nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)),
    "Sequential": lambda: nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)),
    "no modules": nn.Sequential,
}


def parts(module: nn.Module) -> Any:
    """The function of a module in operations that are not fused."""
    if isinstance(module, nn.Sequential):
        return lambda x: one_by_one(module, x)
    if isinstance(module, nn.Residual):
        shortcut = module.shortcut or (lambda x: x)
        return lambda x: parts(module.body)(x) + shortcut(x)
    return module


def one_by_one(modules: Any, x: Any) -> Any:
    for module in modules:
        x = parts(module)(x)
    return x


def outcome(model: nn.Module, f: Any, x: Array) -> list[Array]:
    """The result of f, and every gradient and buffer, from fresh buffers."""
    for name, buffer in model.named_buffers():
        buffer[...] = name.endswith("var")
    for parameter in model.parameters():
        parameter.grad = None
    leaf = tw.Tensor(x, requires_grad=True)
    y = f(leaf)
    weights = np.random.default_rng(1).standard_normal(y.shape).astype(x.dtype)
    (y * tw.tensor(weights)).sum().backward()
    gradients = [leaf.grad, *(p.grad for p in model.parameters())]
    arrays = [y.data, *(g.data for g in gradients if g is not None), *model.buffers()]
    return [np.array(array) for array in arrays]


def check(model: nn.Module, x: Array) -> None:
    for got, wanted in zip(outcome(model, model, x), outcome(model, parts(model), x), strict=True):
        np.testing.assert_array_equal(got, wanted)


def draw_input(seed: int, *, last: bool = False, special: bool = False) -> Array:
    rng = np.random.default_rng(seed)
    x = np.round(rng.standard_normal((3, 4, 5, 6)), 1).astype(np.float32)  # with equal neighbours
    if special:
        x.ravel()[rng.integers(0, x.size, 4)] = np.float32([np.nan, np.inf, -np.inf, -0.0])
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) if last else x


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from(sorted(IMAGES)), min_size=1, max_size=5),
    st.integers(0, 99),
    st.booleans(),
    st.booleans(),
)
def test_a_sequence_has_the_bits_of_its_modules(
    names: list[str], seed: int, last: bool, training: bool
) -> None:
    model = nn.Sequential(*(IMAGES[name]() for name in names)).train(training)
    check(model, draw_input(seed, last=last))


@pytest.mark.parametrize("first", ["Conv2d", "BatchNorm2d", "MaxPool2d", "ReLU"])
@pytest.mark.parametrize("rest", [["ReLU"], ["ReLU", "MaxPool2d"]])
def test_infinities_and_nan_fare_the_same(first: str, rest: list[str]) -> None:
    model = nn.Sequential(*(IMAGES[name]() for name in [first, *rest])).eval()
    with np.errstate(invalid="ignore"):
        check(model, draw_input(0, special=True))


@pytest.mark.parametrize("bias", [True, False])
def test_rows_have_the_bits_of_their_modules(bias: bool) -> None:
    layers = [nn.Linear(6, 9, bias), nn.ReLU(), nn.Linear(9, 7, bias), nn.BatchNorm1d(7)]
    check(nn.Sequential(*layers, nn.ReLU()), draw_input(0).reshape(-1, 6)[:8])


def launches(model: nn.Module, x: Array) -> list[str]:
    with tw.profile() as profile:
        model(tw.tensor(x))
    return [event.name for event in profile.events if event.name != "advance"]


def test_what_is_fused_takes_no_launch_of_its_own() -> None:
    conv, norm, pool = (IMAGES[name] for name in ("Conv2d", "BatchNorm2d", "MaxPool2d"))
    x, relu = draw_input(0), nn.ReLU
    assert launches(nn.Sequential(conv(), relu()), x) == ["conv2d"]
    assert launches(nn.Sequential(norm(), relu()), x) == ["batch_norm_train"]
    assert launches(nn.Sequential(norm(), relu(), pool()), x) == ["batch_norm_train", "max_pool2d"]
    assert launches(nn.Sequential(nn.Residual(norm()), relu()), x) == ["batch_norm_train"]
    assert launches(nn.Sequential(nn.Flatten(), nn.Linear(120, 2), relu()), x)[-1] == "matmul"


class Doubled(nn.Conv2d):
    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return super().forward(x) * 2


def test_overridden_modules_are_called_as_they_are() -> None:
    x, relu = draw_input(0), nn.ReLU()
    model = nn.Sequential(Doubled(4, 4, 1), relu)
    check(model, x)
    seen = []
    relu.forward = lambda x: seen.append(x) or tw.relu(x)  # type: ignore[func-returns-value, method-assign]
    model = nn.Sequential(nn.Conv2d(4, 4, 1), relu, nn.MaxPool2d(2))
    check(model, x)
    assert len(seen) == 2


def test_a_residual_that_is_broadcast_is_added() -> None:
    norm, x = nn.BatchNorm2d(4), draw_input(0)
    row = tw.tensor(np.ones((1, 4, 1, 1), np.float32))
    wanted = tw.relu(norm(tw.tensor(x)) + row)
    got = chain([norm], tw.tensor(x), row, "relu")
    np.testing.assert_array_equal(got.data, wanted.data)


def test_fused_modules_have_second_derivatives() -> None:
    layers = [nn.Linear(3, 4, dtype=np.float64), nn.BatchNorm1d(4, dtype=np.float64), nn.ReLU()]
    model = nn.Sequential(nn.Residual(nn.Sequential(nn.Linear(3, 3, dtype=np.float64))), *layers)
    check_second_derivative(model, [np.random.default_rng(0).standard_normal((6, 3))])


def test_a_captured_step_notices_a_replaced_activation() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.MaxPool2d(2))
    call, x = tw.capture(lambda x: model(x).sum()), tw.tensor(draw_input(0))
    for _ in range(4):
        call(x)
    model[1].forward = lambda x: x * 0
    assert call(x).item() == 0
