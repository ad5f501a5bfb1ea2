"""GoogLeNet, which is Inception v1, and a small Inception for 32 x 32 images."""

from __future__ import annotations

from typing import NamedTuple

from .. import nn


class Widths(NamedTuple):
    """Channels of an inception module's convolutions, in the order of the paper's table 1."""

    one: int
    reduce3: int
    three: int
    reduce5: int
    five: int
    pool: int

    @property
    def out(self) -> int:
        return self.one + self.three + self.five + self.pool


INCEPTION_WIDTHS = {
    "inception3a": Widths(64, 96, 128, 16, 32, 32),
    "inception3b": Widths(128, 128, 192, 32, 96, 64),
    "inception4a": Widths(192, 96, 208, 16, 48, 64),
    "inception4b": Widths(160, 112, 224, 24, 64, 64),
    "inception4c": Widths(128, 128, 256, 24, 64, 64),
    "inception4d": Widths(112, 144, 288, 32, 64, 64),
    "inception4e": Widths(256, 160, 320, 32, 128, 128),
    "inception5a": Widths(256, 160, 320, 32, 128, 128),
    "inception5b": Widths(384, 192, 384, 48, 128, 128),
}


def convolution(
    inputs: int, outputs: int, kernel: int, stride: int = 1, *, batch_norm: bool = False
) -> nn.Sequential:
    """Convolution, BatchNorm if asked for, ReLU; padded so that stride 1 keeps the size."""
    layers: dict[str, nn.Module] = {
        "conv": nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=not batch_norm)
    }
    if batch_norm:
        layers["norm"] = nn.BatchNorm2d(outputs)
    return nn.Sequential(layers | {"relu": nn.ReLU()})


def inception(inputs: int, widths: Widths, *, batch_norm: bool = False) -> nn.Concat:
    """1 x 1, 3 x 3, 5 x 5 and pooled branches on the same x, joined along the channels."""

    def unit(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
        return convolution(inputs, outputs, kernel, batch_norm=batch_norm)

    return nn.Concat(
        unit(inputs, widths.one, 1),
        nn.Sequential(unit(inputs, widths.reduce3, 1), unit(widths.reduce3, widths.three, 3)),
        nn.Sequential(unit(inputs, widths.reduce5, 1), unit(widths.reduce5, widths.five, 5)),
        nn.Sequential(nn.MaxPool2d(3, 1, 1), unit(inputs, widths.pool, 1)),
    )


def googlenet(classes: int = 1000, *, batch_norm: bool = False) -> nn.Sequential:
    """GoogLeNet as table 1 of Szegedy et al. 2015 ("Going deeper with convolutions") has it.

    Without the auxiliary classifiers. With `batch_norm`, BatchNorm after every convolution takes
    the place of local response normalisation (Ioffe & Szegedy 2015).

    Shape:
        x: (N, 3, 224, 224), y: (N, classes).
    """

    def pool() -> nn.Module:
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    def response_norm() -> dict[str, nn.Module]:
        return {} if batch_norm else {"norm": nn.LocalResponseNorm(5)}

    layers: dict[str, nn.Module] = {"conv1": convolution(3, 64, 7, 2, batch_norm=batch_norm)}
    layers["pool1"] = nn.Sequential({"pool": pool(), **response_norm()})
    reduced = convolution(64, 64, 1, batch_norm=batch_norm)
    layers["conv2"] = nn.Sequential(
        {"reduce": reduced, "conv": convolution(64, 192, 3, batch_norm=batch_norm)}
        | response_norm()
    )
    layers["pool2"] = pool()
    channels = 192
    for name, widths in INCEPTION_WIDTHS.items():
        layers[name] = inception(channels, widths, batch_norm=batch_norm)
        channels = widths.out
        if name in ("inception3b", "inception4e"):
            layers[f"pool{name[9]}"] = pool()
    layers["pool5"] = nn.AvgPool2d(7, 1)
    layers["flatten"] = nn.Flatten()
    layers["dropout"] = nn.Dropout(0.4)
    layers["linear"] = nn.Linear(channels, classes)
    return nn.Sequential(layers)


def small_inception(classes: int = 10, *, batch_norm: bool = True) -> nn.Sequential:
    """Three inception modules for 32 x 32 images, 6.3 million multiply-adds an image.

    Shape:
        x: (N, 3, 32, 32), y: (N, classes).
    """
    layers: dict[str, nn.Module] = {"stem": convolution(3, 32, 3, batch_norm=batch_norm)}
    channels = 32
    for i, widths in enumerate(
        (Widths(16, 24, 32, 8, 8, 8), Widths(32, 32, 64, 8, 16, 16), Widths(64, 48, 96, 8, 32, 32))
    ):
        layers[f"pool{i + 1}"] = nn.MaxPool2d(2)
        layers[f"inception{i + 1}"] = inception(channels, widths, batch_norm=batch_norm)
        channels = widths.out
    layers |= {"pool": nn.GlobalAvgPool2d(), "flatten": nn.Flatten()}
    return nn.Sequential(layers | {"linear": nn.Linear(channels, classes)})
