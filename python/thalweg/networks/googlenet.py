"""GoogLeNet, which is Inception v1, and a small Inception for 32 x 32 images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .. import functional as F
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

AUXILIARY = {"aux1": "inception4a", "aux2": "inception4d"}  # head: the layer whose output it sees


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


class GoogLeNetOutputs(NamedTuple):
    """Logits (N, classes) of the network and its auxiliary classifiers, in torchvision's order."""

    logits: Any
    aux_logits2: Any
    aux_logits1: Any


class GoogLeNet(nn.Module):
    """GoogLeNet with the auxiliary classifiers of the paper's section 5, which bring gradients to
    its middle (see `AUXILIARY`).

    Keys and dropout of all other layers are those of the network without them.

    Args:
        layers: all layers, as `googlenet` has them.
        heads: those that `AUXILIARY` names.

    Shape:
        x: (N, 3, 224, 224); y: `GoogLeNetOutputs` in training, (N, classes) in evaluation, where
        the heads do not run.
    """

    def __init__(self, layers: Mapping[str, nn.Module], heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for name, module in (*layers.items(), *heads.items()):
            self.add_module(name, module)

    def forward(self, x: Any) -> Any:
        seen = {}
        for name, module in self.named_children():
            if name not in AUXILIARY:
                x = seen[name] = module(x)
        if not self.training:
            return x
        aux1, aux2 = (getattr(self, head)(seen[layer]) for head, layer in AUXILIARY.items())
        return GoogLeNetOutputs(x, aux2, aux1)


class AuxiliaryLoss:
    """loss(logits, y) + weight * (loss(aux1, y) + loss(aux2, y)); loss(logits, y) of logits alone.

    Args:
        loss: of logits and target; default `nn.CrossEntropyLoss()`.
        weight: 0.3 in the paper.
    """

    def __init__(self, loss: Callable[[Any, Any], Any] | None = None, weight: float = 0.3) -> None:
        self.loss = nn.CrossEntropyLoss() if loss is None else loss
        self.weight = weight
        self.reduction = getattr(self.loss, "reduction", "mean")

    def __call__(self, outputs: Any, target: Any) -> Any:
        if not isinstance(outputs, GoogLeNetOutputs):
            return self.loss(outputs, target)
        auxiliary = F.add(
            self.loss(outputs.aux_logits1, target), self.loss(outputs.aux_logits2, target)
        )
        return F.add(self.loss(outputs.logits, target), F.mul(auxiliary, self.weight))


def auxiliary_classifier(inputs: int, classes: int, *, batch_norm: bool = False) -> nn.Sequential:
    """The head of 14 x 14 images: 5 x 5 / 3 mean, 128 channels, 1024 units, 70 % dropout."""
    return nn.Sequential(
        {
            "pool": nn.AvgPool2d(5, 3),
            "conv": convolution(inputs, 128, 1, batch_norm=batch_norm),
            "flatten": nn.Flatten(),
            "linear1": nn.Linear(128 * 4 * 4, 1024),
            "relu": nn.ReLU(),
            "dropout": nn.Dropout(0.7),
            "linear2": nn.Linear(1024, classes),
        }
    )


def googlenet(
    classes: int = 1000, *, batch_norm: bool = False, auxiliary: bool = False
) -> nn.Sequential | GoogLeNet:
    """GoogLeNet as table 1 of Szegedy et al. 2015 ("Going deeper with convolutions") has it.

    Args:
        batch_norm: BatchNorm after every convolution takes the place of local response
            normalisation (Ioffe & Szegedy 2015).
        auxiliary: with the two auxiliary classifiers; train it with `AuxiliaryLoss`.

    Shape:
        x: (N, 3, 224, 224), y: (N, classes); in training with `auxiliary`, `GoogLeNetOutputs`.
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
    if not auxiliary:
        return nn.Sequential(layers)
    heads = {
        head: auxiliary_classifier(INCEPTION_WIDTHS[layer].out, classes, batch_norm=batch_norm)
        for head, layer in AUXILIARY.items()
    }
    return GoogLeNet(layers, heads)


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
