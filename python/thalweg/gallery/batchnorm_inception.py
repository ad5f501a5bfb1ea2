"""Figure 2 of Ioffe & Szegedy, "Batch normalization", 2015 (arXiv:1502.03167, 4.2), scaled down.

A small Inception on CIFAR-10 without BatchNorm at a rate that suits it, and with BatchNorm at 1, 5
and 30 times that rate: test accuracy against steps, and how many steps each takes to the best
accuracy of the net without. As in the paper, momentum SGD on mini-batches of 32 and rates that fall
exponentially; dropout and local response normalisation are left out.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import nn, optim
from ..autograd import no_grad
from ..backend import Array
from ..capture import capture
from ..data import ArrayDataset, cifar10
from ..files import atomic_write
from ..networks import small_inception
from ..plots import new_figure, save_figure
from ..random import manual_seed
from ..tensor import Tensor

if TYPE_CHECKING:
    from os import PathLike

BATCH, STEPS, EVERY = 32, 1000, 100
LR = 0.01
RUNS: dict[str, tuple[bool, float]] = {  # BatchNorm, times LR
    "without": (False, 1),
    "BatchNorm x1": (True, 1),
    "BatchNorm x5": (True, 5),
    "BatchNorm x30": (True, 30),
}


class Point(NamedTuple):
    """One evaluation on the test set."""

    step: int
    accuracy: float


def run(
    train: ArrayDataset,
    test: ArrayDataset,
    *,
    batch_norm: bool,
    times: float,
    steps: int,
    seed: int,
) -> list[Point]:
    """Train one of the nets; a point before the first step and after every EVERY steps."""
    manual_seed(seed)
    model = small_inception(batch_norm=batch_norm)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):  # without it the net without BatchNorm does not start
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    optimizer = optim.SGD(model.parameters(), lr=LR * times, momentum=0.9)
    schedule = optim.lr_scheduler.ExponentialLR(optimizer, 0.1 ** (1 / steps))
    loss_of = nn.CrossEntropyLoss()

    def step(x: Array, y: Array) -> Tensor:
        loss: Tensor = loss_of(model(Tensor(x)), y)
        loss.backward()
        optimizer.step(zero_grad=True)
        return loss

    update = capture(step)
    points = []
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(train))
    for done in range(steps):
        if done % EVERY == 0:
            points.append(Point(done, accuracy(model, test)))
        start = done * BATCH % (len(train) - BATCH + 1)
        if start < BATCH:
            order = generator.permutation(len(train))
        index = order[start : start + BATCH]
        update(train.x[index], train.y[index])
        schedule.step()
    return [*points, Point(steps, accuracy(model, test))]


def accuracy(model: nn.Module, test: ArrayDataset) -> float:
    """The share of the test set that is classified rightly, in evaluation mode."""
    model.eval()
    right = 0
    with no_grad():
        for start in range(0, len(test), 500):
            logits = model(Tensor(test.x[start : start + 500]))
            right += int((logits.data.argmax(-1) == test.y[start : start + 500]).sum())
    model.train()
    return right / len(test)


def steps_to(points: list[Point], goal: float) -> int | None:
    """The first evaluated step with at least that accuracy."""
    return next((point.step for point in points if point.accuracy >= goal), None)


def make(
    data: str | PathLike[str],
    output: str | PathLike[str],
    *,
    steps: int = STEPS,
    seed: int = 0,
) -> dict[str, list[Point]]:
    """All four runs; writes figure.png, points.csv and steps.csv.

    Args:
        data: folder of CIFAR-10's binary files.
        output: folder to write into, made if need be.
        steps: of each run, at least 1.
        seed: of weights and order; all runs have the same.

    Returns: the points of each run of RUNS.
    """
    splits = cifar10(Path(data), validation=0, seed=seed, flatten=False)
    runs = {}
    for name, (batch_norm, times) in RUNS.items():
        options: dict[str, Any] = {"batch_norm": batch_norm, "times": times}
        runs[name] = run(splits.train, splits.test, **options, steps=steps, seed=seed)
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    goal = max(point.accuracy for point in runs["without"])
    _write(
        folder / "points.csv",
        ("run", "step", "test_accuracy"),
        [(name, *point) for name, points in runs.items() for point in points],
    )
    _write(
        folder / "steps.csv",
        ("run", "steps_to", "accuracy", "best"),
        [
            (name, steps_to(points, goal), goal, max(point.accuracy for point in points))
            for name, points in runs.items()
        ],
    )
    _draw(runs, goal, folder / "figure.png")
    return runs


def _write(path: Path, head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())


def _draw(runs: dict[str, list[Point]], goal: float, path: Path) -> None:
    figure = new_figure((6.4, 4.2))
    axes = figure.add_subplot()
    for name, points in runs.items():
        reached = steps_to(points, goal)
        label = name if reached is None else f"{name}: {reached} steps"
        axes.plot([p.step for p in points], [p.accuracy for p in points], label=label)
    axes.axhline(goal, color="0.6", linewidth=0.8, linestyle=":")
    axes.set_xlabel("step")
    axes.set_ylabel("test accuracy")
    axes.legend(frameon=False)
    save_figure(figure, path)
