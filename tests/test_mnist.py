"""The MNIST experiment of Ioffe & Szegedy, "Batch normalization", 2015, section 4.1 and figure 1.

784-100-100-100-10, sigmoid, batches of 60, small random Gaussian weights, plain SGD. The paper does
not state its learning rate; here both nets take 3.0, constant for three epochs, then falling to
almost nothing over the last two.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import thalweg as tw
from thalweg.data import Splits

WIDTHS = (784, 100, 100, 100)
BATCH, EPOCHS = 60, 5
LR, STEPS, CONSTANT_STEPS = 3.0, 5000, 3000


def paper_net(*, batch_norm: bool) -> tw.nn.Module:
    generator = tw.manual_seed(0).numpy
    layers: list[tw.nn.Module] = []
    for inputs, outputs in pairwise(WIDTHS):
        layers.append(tw.nn.Linear(inputs, outputs))
        if batch_norm:
            layers.append(tw.nn.BatchNorm1d(outputs))
        layers.append(tw.nn.Sigmoid())
    layers.append(tw.nn.Linear(WIDTHS[-1], 10))
    for layer in layers:
        if isinstance(layer, tw.nn.Linear):
            layer.weight.data[...] = generator.normal(0, 0.05, layer.weight.shape)
            layer.bias.data[...] = 0
    return tw.nn.Sequential(*layers)


def accuracy_after_each_epoch(splits: Splits, *, batch_norm: bool) -> list[float]:
    model = paper_net(batch_norm=batch_norm)
    optimizer = tw.optim.SGD(model.parameters(), lr=LR)
    falling = STEPS - CONSTANT_STEPS
    schedule = tw.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, max(STEPS - step, 50) / falling)
    )
    trainer = tw.Trainer(model, tw.nn.CrossEntropyLoss(), optimizer, schedule, schedule="step")
    history = trainer.fit(splits.train, splits.test, epochs=EPOCHS, batch_size=BATCH)
    return history["val_accuracy"]


def test_batch_norm_learns_faster_and_better(data_directory: Path) -> None:
    splits = tw.data.mnist(data_directory / "mnist", validation=0)
    assert [len(splits.train), len(splits.test)] == [60_000, 10_000]
    normalised = accuracy_after_each_epoch(splits, batch_norm=True)
    plain = accuracy_after_each_epoch(splits, batch_norm=False)
    assert normalised[-1] >= 0.975
    assert all(a > b for a, b in zip(normalised, plain, strict=True)), (normalised, plain)


def test_cifar10_reads_whole(data_directory: Path) -> None:
    splits = tw.data.cifar10(data_directory / "cifar-10-batches-bin", standardise=False)
    assert splits.validation is not None
    assert [len(part) for part in splits if part] == [9000, 1000, 2000]
    assert splits.train.x.shape == (9000, 3072)
    assert splits.train.x.min() >= 0 and splits.train.x.max() == 1
