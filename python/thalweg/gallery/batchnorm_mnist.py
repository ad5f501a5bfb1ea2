"""Figure 1 of Ioffe & Szegedy, "Batch normalization", 2015 (arXiv:1502.03167, section 4.1).

784-100-100-100-10 with sigmoids and small random Gaussian weights on pixels in [0, 1], mini-batches
of 60, plain SGD, with and without BatchNorm before each sigmoid: test accuracy against steps, and
how the input of one typical sigmoid of the last hidden layer is distributed as training goes on.
The paper does not state learning rate and deviation of the weights; `LR` and `DEVIATION` are this
library's choice.
"""

from __future__ import annotations

import csv
import io
import threading
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import _core, nn, optim
from ..autograd import no_grad
from ..backend import Array
from ..capture import capture
from ..data import ArrayDataset, mnist
from ..files import atomic_write
from ..plots import new_figure, save_figure
from ..random import Generator
from ..tensor import Tensor

if TYPE_CHECKING:
    from os import PathLike

WIDTHS = (784, 100, 100, 100)
BATCH, STEPS, EVERY = 60, 50_000, 500
LR, DEVIATION = 0.5, 0.05
UNIT = 0  # of the last hidden layer
PERCENTILES = (15, 50, 85)


class Point(NamedTuple):
    """One evaluation on the test set. inputs: PERCENTILES of the sigmoid's input."""

    step: int
    accuracy: float
    inputs: tuple[float, ...]


def net(*, batch_norm: bool, seed: int) -> tuple[nn.Sequential, nn.Linear]:
    """What comes before the last sigmoid, and the layer of classes behind it."""
    generator = Generator(seed).numpy
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(WIDTHS):
        layers += [nn.Linear(inputs, outputs), nn.Sigmoid()]
        if batch_norm:
            layers.insert(-1, nn.BatchNorm1d(outputs))
    classes = nn.Linear(WIDTHS[-1], 10)
    for layer in (*layers, classes):
        if isinstance(layer, nn.Linear) and layer.bias is not None:
            layer.weight.data[...] = generator.normal(0, DEVIATION, layer.weight.shape)
            layer.bias.data[...] = 0
    return nn.Sequential(*layers[:-1]), classes


def run(
    train: ArrayDataset, test: ArrayDataset, *, batch_norm: bool, steps: int, seed: int
) -> list[Point]:
    """Train one of the nets; a point before the first step and after every EVERY steps."""
    before, classes = net(batch_norm=batch_norm, seed=seed)
    optimizer = optim.SGD([*before.parameters(), *classes.parameters()], lr=LR)
    loss_of = nn.CrossEntropyLoss()

    def step(x: Array, y: Array) -> Tensor:
        loss: Tensor = loss_of(classes(before(Tensor(x)).sigmoid()), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    update = capture(step)
    points = []
    for done, index in enumerate(_batches(len(train), steps, seed)):
        if done % EVERY == 0:
            points.append(_measure(before, classes, test, done))
        update(train.x[index], train.y[index])
    return [*points, _measure(before, classes, test, steps)]


def _batches(samples: int, steps: int, seed: int) -> Any:
    """Indices of `steps` mini-batches, in a new order in each epoch."""
    generator = np.random.default_rng(seed)
    done = 0
    while done < steps:
        order = generator.permutation(samples)
        for start in range(0, samples - BATCH + 1, BATCH)[: steps - done]:
            yield order[start : start + BATCH]
            done += 1


def _measure(before: nn.Module, classes: nn.Module, test: ArrayDataset, step: int) -> Point:
    before.eval()
    with no_grad():
        inputs = before(Tensor(test.x))
        logits = classes(inputs.sigmoid())
    before.train()
    percentiles = np.percentile(inputs.data[:, UNIT], PERCENTILES)
    accuracy = float((logits.data.argmax(-1) == test.y).mean())
    return Point(step, accuracy, tuple(map(float, percentiles)))


def make(
    data: str | PathLike[str],
    output: str | PathLike[str],
    *,
    steps: int = STEPS,
    seed: int = 0,
) -> dict[str, list[Point]]:
    """Both runs, at the same time on a thread each; writes figure.png and points.csv.

    Args:
        data: folder of MNIST's four files.
        output: folder to write into, made if need be.
        steps: of each run, at least 1.
        seed: of weights and order; both runs have the same.

    Returns: the points "with BatchNorm" and "without".
    """
    splits = mnist(Path(data), validation=0, standardise=False)
    runs: dict[str, list[Point]] = {"with BatchNorm": [], "without": []}

    def work(name: str) -> None:
        batch_norm = name == "with BatchNorm"
        options: dict[str, Any] = {"batch_norm": batch_norm, "steps": steps, "seed": seed}
        runs[name] = run(splits.train, splits.test, **options)

    threads = _core.get_num_threads()
    _core.set_num_threads(1)  # launches of microseconds: a core for each run beats two for one
    try:
        workers = [threading.Thread(target=work, args=(name,)) for name in runs]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        _core.set_num_threads(threads)
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    _write_points(runs, folder / "points.csv")
    _draw(runs, folder / "figure.png")
    return runs


def _write_points(runs: dict[str, list[Point]], path: Path) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["run", "step", "test_accuracy", *(f"input_p{p}" for p in PERCENTILES)])
    for name, points in runs.items():
        table.writerows([name, point.step, point.accuracy, *point.inputs] for point in points)
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())


def _draw(runs: dict[str, list[Point]], path: Path) -> None:
    figure = new_figure((12, 3.8))
    accuracy, *inputs = figure.subplots(1, 3)
    for (name, points), style in zip(runs.items(), ("-", "--"), strict=True):
        accuracy.plot([p.step for p in points], [p.accuracy for p in points], style, label=name)
    accuracy.set_ylim(0.7, 1)
    accuracy.set_ylabel("test accuracy")
    accuracy.legend(loc="lower right")
    for panel, (name, points) in zip(inputs, reversed(runs.items()), strict=True):
        panel.plot([p.step for p in points], [p.inputs for p in points])
        panel.legend([f"{p} %" for p in PERCENTILES])
        panel.set_title(name)
        panel.set_ylabel("a sigmoid's input")
    low = min(panel.get_ylim()[0] for panel in inputs)
    high = max(panel.get_ylim()[1] for panel in inputs)
    for panel in inputs:
        panel.set_ylim(low, high)
    for panel in (accuracy, *inputs):
        panel.set_xlabel("step")
        panel.grid(alpha=0.3)
    save_figure(figure, path)
