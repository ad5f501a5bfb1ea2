"""What a captured step cannot repeat is refused by name."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import thalweg as tw
from captured_steps import Step, classes, net, training_step
from thalweg.functional import cross_entropy, mse_loss


def refused(step: Step, message: str, calls: int = 4) -> None:
    """A step on (x, y) is refused by name within a few calls."""
    call = tw.capture(step)
    with pytest.raises(tw.CaptureError, match=message):
        for x, y in classes(calls):
            call(x, y)


@pytest.mark.parametrize(
    ("read", "name"),
    [
        (lambda loss: loss.item() > 0, "item"),
        (lambda loss: bool(loss), "item"),
        (lambda loss: loss > 0, "ndarray.__bool__"),
        (lambda loss: loss.detach().numpy(), "numpy"),
        (lambda loss: np.asarray(loss), "numpy"),
        (lambda loss: loss.data > 0, "numpy.greater"),
        (lambda loss: loss.data.item(), "ndarray.item"),
        (lambda loss: str(loss), "repr"),
    ],
)
def test_a_branch_on_a_value_is_refused(read: Step, name: str) -> None:
    model = net()

    def step(x: Any, y: Any) -> Any:
        loss = cross_entropy(model(x), y)
        if read(loss):
            loss = loss * 2
        loss.backward()
        return loss

    refused(step, name)


def test_a_counter_in_the_closure_is_refused_by_name() -> None:
    model, count = net(), 0

    def step(x: Any, y: Any) -> Any:
        nonlocal count
        count += 1
        return cross_entropy(model(x), y) * count

    refused(step, "'count'")


def test_a_number_that_changes_is_refused_with_the_operation() -> None:
    model, counts = net(), iter(range(9))

    def step(x: Any, y: Any) -> Any:
        return cross_entropy(model(x), y) * next(counts)

    refused(step, "mul uses a number")


def test_a_branch_on_a_counter_is_refused() -> None:
    model, counts = net(), iter(range(1, 9))

    def step(x: Any, y: Any) -> Any:
        h = model(x)
        return cross_entropy(h.relu() if next(counts) % 2 else h.tanh(), y)

    refused(step, "relu .* tanh")


def test_numpy_computations_are_refused() -> None:
    model = net()
    outside = np.ones((8, 4), np.float32)

    def on_results(x: Any, y: Any) -> Any:
        return cross_entropy(tw.Tensor(np.tanh(model(x).data)), y)

    def on_inputs(x: Any, y: Any) -> Any:
        return mse_loss(model(x), tw.Tensor(np.eye(3, dtype=np.float32)[y]))

    def on_its_own(x: Any, y: Any) -> Any:
        return cross_entropy(model(x * tw.Tensor(np.full(4, 2, np.float32))), y)

    def in_place(x: Any, y: Any) -> Any:
        outside[...] = np.random.default_rng().random(outside.shape)
        return cross_entropy(model(x * tw.Tensor(outside)), y)

    refused(on_results, "numpy.tanh")
    refused(on_inputs, "sub reads an array")
    refused(on_its_own, "mul reads an array")
    refused(in_place, "mul reads an array")


def test_parameters_changed_by_numpy_are_refused() -> None:
    model = net()
    opt = tw.optim.SGD(model.parameters(), lr=0.5)

    def step(x: Any, y: Any) -> Any:
        loss = training_step(model, opt, cross_entropy)(x, y)
        for p in model.parameters():
            np.clip(p.data, -0.1, 0.1, out=p.data)
        return loss

    refused(step, "does not give its bits")


def test_hyperparameters_set_in_the_step_are_refused() -> None:
    model = net()
    opt = tw.optim.SGD(model.parameters(), lr=0.5)
    inner = training_step(model, opt, cross_entropy)

    def sets_rate(x: Any, y: Any) -> Any:
        opt.param_groups[0]["lr"] *= 0.9
        return inner(x, y)

    refused(sets_rate, "param_groups")


def test_writable_arrays_are_refused_and_read_only_ones_are_not() -> None:
    model, scale = net(), np.full((8, 4), 2, np.float32)

    def step(x: Any, y: Any) -> Any:
        return cross_entropy(model(x * tw.Tensor(scale)), y)

    refused(step, "mul reads an array of shape \\(8, 4\\)")
    scale.setflags(write=False)
    call = tw.capture(step)
    for x, y in classes(5):
        assert call(x, y).item() == step(x, y).item()
    assert call.replays == 3


def test_warning_once_and_then_define_by_run() -> None:
    model = net()
    opt = tw.optim.SGD(model.parameters(), lr=0.1)

    def step(x: Any, y: Any) -> Any:
        loss = training_step(model, opt, cross_entropy)(x, y)
        loss.item()
        return loss

    call = tw.capture(step, on_refusal="warn")
    same = net()
    plain = training_step(same, tw.optim.SGD(same.parameters(), lr=0.1), cross_entropy)
    (x, y), *rest = classes(5)
    with pytest.warns(UserWarning, match="item reads a value"):
        assert call(x, y).item() == plain(x, y).item()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for x, y in rest:
            assert call(x, y).item() == plain(x, y).item()
    assert "item" in call.refusal


def test_captures_do_not_nest() -> None:
    inner = tw.capture(cross_entropy)
    refused(lambda x, y: inner(x, y), "nest")
