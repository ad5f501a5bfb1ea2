"""LeNet with BatchNorm for 28 x 28 digits."""

from __future__ import annotations

from .. import nn


def lenet(classes: int = 10, channels: int = 1) -> nn.Sequential:
    """Two 5 x 5 convolutions with pooling, two linear layers, BatchNorm after each but the last.

    LeNet-5's plan (LeCun, Bottou, Bengio & Haffner 1998) with today's widths (32, 64, 128), ReLU,
    max pooling and BatchNorm (Ioffe & Szegedy 2015). ReLU is applied by the pooling pass: it is
    the same before and after a maximum.

    Shape:
        x: (N, channels, 28, 28), y: (N, classes).
    """
    return nn.Sequential(
        nn.Conv2d(channels, 32, 5, padding=2, bias=False),
        nn.BatchNorm2d(32),
        nn.MaxPool2d(2, activation="relu"),
        nn.Conv2d(32, 64, 5, padding=2, bias=False),
        nn.BatchNorm2d(64),
        nn.MaxPool2d(2, activation="relu"),
        nn.Flatten(),
        nn.Linear(64 * 7 * 7, 128, bias=False),
        nn.BatchNorm1d(128),
        nn.ReLU(),
        nn.Linear(128, classes),
    )
