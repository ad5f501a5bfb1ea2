"""The convolutions of LeNet, AlexNet, GoogLeNet and ResNet-18."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ConvLayer:
    """A square convolution on images of (channels, size, size)."""

    name: str
    channels: int
    size: int
    outputs: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        return self.outputs, self.channels // self.groups, self.kernel, self.kernel

    @property
    def output_size(self) -> int:
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1


# LeCun 1998 with the channels of performance.md's BatchNorm variant.
LENET = [ConvLayer("conv1", 1, 28, 32, 5, 1, 2), ConvLayer("conv2", 32, 14, 64, 5, 1, 2)]

# Krizhevsky 2012: two columns, joined in the third layer.
ALEXNET = [
    ConvLayer("conv1", 3, 224, 96, 11, 4, 2),
    ConvLayer("conv2", 96, 27, 256, 5, 1, 2, 2),
    ConvLayer("conv3", 256, 13, 384, 3, 1, 1),
    ConvLayer("conv4", 384, 13, 384, 3, 1, 1, 2),
    ConvLayer("conv5", 384, 13, 256, 3, 1, 1, 2),
]

# Szegedy 2015, table 1: size, channels in, 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection.
INCEPTION = {
    "3a": (28, 192, 64, 96, 128, 16, 32, 32),
    "3b": (28, 256, 128, 128, 192, 32, 96, 64),
    "4a": (14, 480, 192, 96, 208, 16, 48, 64),
    "4b": (14, 512, 160, 112, 224, 24, 64, 64),
    "4c": (14, 512, 128, 128, 256, 24, 64, 64),
    "4d": (14, 512, 112, 144, 288, 32, 64, 64),
    "4e": (14, 528, 256, 160, 320, 32, 128, 128),
    "5a": (7, 832, 256, 160, 320, 32, 128, 128),
    "5b": (7, 832, 384, 192, 384, 48, 128, 128),
}


def inception(name: str) -> list[ConvLayer]:
    """The six convolutions of one module."""
    size, channels, one, reduce3, three, reduce5, five, pool = INCEPTION[name]
    return [
        ConvLayer(f"{name} 1x1", channels, size, one, 1),
        ConvLayer(f"{name} 3x3 reduce", channels, size, reduce3, 1),
        ConvLayer(f"{name} 3x3", reduce3, size, three, 3, 1, 1),
        ConvLayer(f"{name} 5x5 reduce", channels, size, reduce5, 1),
        ConvLayer(f"{name} 5x5", reduce5, size, five, 5, 1, 2),
        ConvLayer(f"{name} pool proj", channels, size, pool, 1),
    ]


GOOGLENET = [
    ConvLayer("conv1", 3, 224, 64, 7, 2, 3),
    ConvLayer("conv2 reduce", 64, 56, 64, 1),
    ConvLayer("conv2", 64, 56, 192, 3, 1, 1),
    *[layer for name in INCEPTION for layer in inception(name)],
]

# He 2016: the distinct convolutions of 18 layers.
RESNET18 = [
    ConvLayer("conv1", 3, 224, 64, 7, 2, 3),
    ConvLayer("conv2", 64, 56, 64, 3, 1, 1),
    ConvLayer("conv3 first", 64, 56, 128, 3, 2, 1),
    ConvLayer("conv3 shortcut", 64, 56, 128, 1, 2),
    ConvLayer("conv3", 128, 28, 128, 3, 1, 1),
    ConvLayer("conv4 first", 128, 28, 256, 3, 2, 1),
    ConvLayer("conv4 shortcut", 128, 28, 256, 1, 2),
    ConvLayer("conv4", 256, 14, 256, 3, 1, 1),
    ConvLayer("conv5 first", 256, 14, 512, 3, 2, 1),
    ConvLayer("conv5 shortcut", 256, 14, 512, 1, 2),
    ConvLayer("conv5", 512, 7, 512, 3, 1, 1),
]

NETWORKS = {"lenet": LENET, "alexnet": ALEXNET, "googlenet": GOOGLENET, "resnet18": RESNET18}
