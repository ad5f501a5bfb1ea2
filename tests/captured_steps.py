"""Training steps to be captured: nets, batches, and the bytes that a run leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import thalweg as tw
from thalweg import nn

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
