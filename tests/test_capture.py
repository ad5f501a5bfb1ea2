"""Captured steps give the bits of define-by-run, and what cannot be captured is refused by name."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import thalweg as tw
from layer_table import LAYERS
from optim_table import Options, Row, every_variant
from test_losses import LOSSES
from thalweg import nn
from thalweg.functional import cross_entropy, mse_loss

STEPS = 100
Step = Callable[..., Any]


def train(model: nn.Module, opt: Any, loss: Step, batches: list[Any], captured: bool) -> list[Any]:
    """Losses, then parameters, buffers and states, after steps with a schedule."""
    step = training_step(model, opt, loss)
    run = tw.capture(step) if captured else step
    schedule = tw.optim.lr_scheduler.CosineAnnealingLR(opt, len(batches))
    losses = []
    for x, y in batches:
        losses.append(run(x, y).data.tobytes())
        schedule.step()
    if captured:
        assert run.replays == len(batches) - 2
    states = opt.state_dict()["state"].values()
    arrays = [a for entry in states for a in entry.values() if isinstance(a, np.ndarray)]
    grads = [p.grad.data for p in model.parameters() if p.grad is not None]
    named = list(model.state_dict().values())
    return losses + [a.tobytes() for a in [*named, *arrays, *grads]]


def training_step(model: nn.Module, opt: Any, loss: Step) -> Step:
    def step(x: Any, y: Any) -> Any:
        opt.zero_grad()
        value = loss(model(x), y)
        value.backward()
        opt.step()
        tw.random.default_generator().advance()
        return value

    return step


def drawn(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def regression(shape: tuple[int, ...], steps: int = STEPS) -> list[Any]:
    return [(tw.Tensor(drawn(shape, i)), i) for i in range(steps)]


def net(seed: int = 3) -> nn.Module:
    tw.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))


def classes(steps: int = STEPS, samples: int = 8) -> list[Any]:
    return [
        (tw.Tensor(drawn((samples, 4), i)), np.random.default_rng(i).integers(0, 3, samples))
        for i in range(steps)
    ]


# --- the same bits -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(LAYERS))
def test_replay_of_every_layer_equals_define_by_run(name: str) -> None:
    def run(captured: bool) -> list[Any]:
        tw.manual_seed(1)
        layer = LAYERS[name]
        model = nn.Sequential(ScaleShift(), layer.make())
        opt = tw.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        batches = [(x, tw.Tensor(drawn((1,), 7))) for x, _ in regression(layer.shape)]
        return train(model, opt, lambda y, target: (y - target).square().mean(), batches, captured)

    assert run(True) == run(False)


class ScaleShift(nn.Module):
    """Gives layers without parameters something to train."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(np.float32([1.5]))

    def forward(self, x: Any) -> Any:
        return x * self.scale


def test_replay_of_dropout_draws_a_new_mask_in_every_step() -> None:
    def run(captured: bool) -> list[Any]:
        tw.manual_seed(1)
        model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.4), nn.Linear(8, 3), nn.Dropout(0.1))
        opt = tw.optim.Adam(model.parameters())
        return train(model, opt, cross_entropy, classes(), captured)

    assert run(True) == run(False)


@pytest.mark.parametrize("name", list(LOSSES))
def test_replay_of_every_loss_equals_define_by_run(name: str) -> None:
    def run(captured: bool) -> list[Any]:
        tw.manual_seed(1)
        model = nn.Sequential(nn.Linear(4, 3), nn.LogSoftmax(-1))
        opt = tw.optim.SGD(model.parameters(), lr=0.1)
        loss, target = LOSSES[name].ours, LOSSES[name].target
        if target.dtype.kind == "f":
            target = target.astype(np.float32)
        batches = [(x, np.roll(target, i, 0)) for i, (x, _) in enumerate(regression((4, 4)))]
        return train(model, opt, lambda y, t: loss(y, t).sum(), batches, captured)

    assert run(True) == run(False)


@every_variant
def test_replay_of_every_optimizer_equals_define_by_run(row: Row, options: Options) -> None:
    def run(captured: bool) -> list[Any]:
        model = net()
        around = {"max_norm": 0.7, "clip_value": 0.4, "ema_decay": 0.9}
        opt = row.make(model.parameters(), **options, **around)
        return train(model, opt, cross_entropy, classes(), captured)

    assert run(True) == run(False)


def test_gradients_that_accumulate_over_calls() -> None:
    def run(captured: bool) -> list[Any]:
        model = net()
        opt = tw.optim.SGD(model.parameters(), lr=0.1)

        def step(x: Any, y: Any) -> Any:
            loss = cross_entropy(model(x), y)
            loss.backward()
            return loss

        call = tw.capture(step) if captured else step
        for i, (x, y) in enumerate(classes(40)):
            call(x, y)
            if i % 4 == 3:
                opt.step(zero_grad=True)
        return [p.data.tobytes() for p in model.parameters()]

    assert run(True) == run(False)


def test_arena_and_steps_that_zero_gradients() -> None:
    def run(captured: bool) -> list[Any]:
        model = net()
        arena = tw.backend.Arena(model.parameters())
        opt = tw.optim.AdamW(model.parameters(), max_norm=1.0)

        def step(x: Any, y: Any) -> Any:
            loss = cross_entropy(model(x), y)
            loss.backward()
            opt.step(zero_grad=True)
            return loss

        call = tw.capture(step) if captured else step
        losses = [call(x, y).item() for x, y in classes(20)]
        return [*losses, opt.last_grad_norm, *[a.tobytes() for a in arena.data.values()]]

    assert run(True) == run(False)


# --- the traps -----------------------------------------------------------------------------------


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


def test_another_shape_has_a_plan_of_its_own() -> None:
    def run(captured: bool) -> list[float]:
        model = net()
        step = training_step(model, tw.optim.Adam(model.parameters()), cross_entropy)
        call = tw.capture(step) if captured else step
        batches = [*classes(5), *classes(4, samples=5), *classes(5), *classes(3, samples=5)]
        losses = [call(x, y).item() for x, y in batches]
        if captured:
            assert call.replays == 17 - 4
        return losses

    assert run(True) == run(False)


def test_evaluation_in_between_and_modes() -> None:
    def run(captured: bool) -> list[float]:
        model = nn.Sequential(net(), nn.Dropout(0.5))
        step = training_step(model, tw.optim.Adam(model.parameters()), cross_entropy)
        call = tw.capture(step) if captured else step
        losses = []
        for i, (x, y) in enumerate(classes(20)):
            if i % 5 == 0:
                model.eval()
                losses.append(cross_entropy(model(x), y).item())
                model.train()
            if i == 10:
                model.eval()  # steps in evaluation mode are another plan
            if i == 14:
                model.train()
            losses.append(call(x, y).item())
        return losses

    assert run(True) == run(False)


def test_attributes_of_modules_are_part_of_the_key() -> None:
    def run(captured: bool) -> list[float]:
        model = nn.Sequential(nn.Linear(4, 3), nn.LeakyReLU(0.1), nn.Dropout(0.2))
        tw.manual_seed(3)
        for p in model.parameters():
            p.data[...] = 0.1
        step = training_step(model, tw.optim.SGD(model.parameters(), lr=0.1), cross_entropy)
        call = tw.capture(step) if captured else step
        losses = []
        for i, (x, y) in enumerate(classes(12)):
            if i == 6:
                model[1].negative_slope, model[2].p = 0.3, 0.6
            losses.append(call(x, y).item())
        return losses

    assert run(True) == run(False)


def test_inputs_may_be_freed_or_overwritten() -> None:
    model = net()
    call = tw.capture(training_step(model, tw.optim.SGD(model.parameters(), lr=0.1), cross_entropy))
    same = net()
    step = training_step(same, tw.optim.SGD(same.parameters(), lr=0.1), cross_entropy)
    for i in range(10):
        x, y = drawn((8, 4), i), np.arange(8) % 3
        loss = call(tw.Tensor(x), y)
        expected = step(tw.Tensor(drawn((8, 4), i)), np.arange(8) % 3)
        x.fill(np.nan)
        y.fill(99)
        del x, y
        assert loss.item() == expected.item()


def test_labels_are_checked_in_replays() -> None:
    model = net()
    call = tw.capture(training_step(model, tw.optim.SGD(model.parameters(), lr=0.1), cross_entropy))
    for x, y in classes(4):
        call(x, y)
    with pytest.raises(ValueError, match=r"\[0, 3\), got 7 at position 2"):
        call(x, np.array([0, 1, 7, 0, 0, 0, 0, 0]))


def test_threads_isa_and_new_memory_record_again() -> None:
    model = net()
    opt = tw.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    call = tw.capture(training_step(model, opt, cross_entropy))
    same = net()
    other = tw.optim.SGD(same.parameters(), lr=0.1, momentum=0.9)
    step = training_step(same, other, cross_entropy)

    def agree(replays: int) -> None:
        before = call.replays
        for x, y in classes(5):
            assert call(x, y).item() == step(x, y).item()
        assert call.replays - before == replays

    agree(3)
    tw.set_num_threads(1 if tw.get_num_threads() > 1 else 2)
    agree(3)
    tw.use_isa(tw.available_isas()[0])
    agree(3)
    model[0].weight.data = model[0].weight.data.copy()
    agree(3)
    opt.load_state_dict(opt.state_dict())
    agree(3)
    agree(5)


def test_parameters_that_are_frozen_record_again() -> None:
    nets = [net(), net()]
    steps = []
    for model in nets:
        opt = tw.optim.Adam(model.parameters())
        steps.append(training_step(model, opt, cross_entropy))
    call = tw.capture(steps[0])
    for frozen in (False, True, False):
        for model in nets:
            model[0].weight.requires_grad_(not frozen)
        before = nets[0][0].weight.data.copy()
        for x, y in classes(4):
            assert call(x, y).item() == steps[1](x, y).item()
        assert np.array_equal(before, nets[0][0].weight.data) == frozen
    assert call.replays == 2 + 2 + 4


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


def test_replays_do_not_allocate_results_of_operations() -> None:
    model = net()
    opt = tw.optim.SGD(model.parameters(), lr=0.1)
    call = tw.capture(training_step(model, opt, cross_entropy))
    for x, y in classes(3):
        call(x, y)
    grads = [p.grad.data.ctypes.data for p in model.parameters()]
    call(x, y)
    assert grads == [p.grad.data.ctypes.data for p in model.parameters()]


def test_captures_do_not_nest() -> None:
    inner = tw.capture(cross_entropy)
    refused(lambda x, y: inner(x, y), "nest")
