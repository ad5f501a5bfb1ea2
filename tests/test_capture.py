"""Captured steps give the bits of define-by-run: every layer, loss and optimizer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import thalweg as tw
from captured_steps import classes, drawn, net, regression, train
from layer_table import LAYERS
from optim_table import Options, Row, every_variant
from test_losses import LOSSES
from thalweg import nn
from thalweg.functional import cross_entropy


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
