"""Captured steps between which something changed: shapes, modes, memory, threads, labels."""

from __future__ import annotations

import numpy as np
import pytest

import thalweg as tw
from captured_steps import classes, drawn, net, training_step
from thalweg import nn
from thalweg.functional import cross_entropy


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


def test_replays_do_not_allocate_results_of_operations() -> None:
    model = net()
    opt = tw.optim.SGD(model.parameters(), lr=0.1)
    call = tw.capture(training_step(model, opt, cross_entropy))
    for x, y in classes(3):
        call(x, y)
    grads = [p.grad.data.ctypes.data for p in model.parameters()]
    call(x, y)
    assert grads == [p.grad.data.ctypes.data for p in model.parameters()]
