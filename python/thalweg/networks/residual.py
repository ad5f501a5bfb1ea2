"""Residual networks (He, Zhang, Ren & Sun 2016)."""

from __future__ import annotations

from typing import Any

from .. import nn
from ..nn.chain import chain


class BasicBlock(nn.Module):
    """relu(x + norm(conv(relu(norm(conv(x)))))), both convolutions 3 x 3.

    Where stride or channels change, x goes through a 1 x 1 convolution and BatchNorm
    (`downsample`). Names are torchvision's.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        same = stride == 1 and inputs == outputs
        self.downsample = (
            None
            if same
            else nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        )

    def forward(self, x: Any) -> Any:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.bn1(self.conv1(x), activation="relu")
        return self.bn2(self.conv2(y), residual=shortcut, activation="relu")


class ResNet(nn.Module):
    """Four stages of basic blocks on a 7 x 7 stem; state keys are torchvision's.

    Shape:
        x: (N, 3, 224, 224), y: (N, classes).
    """

    def __init__(self, blocks: tuple[int, ...] = (2, 2, 2, 2), classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = 64
        for stage, count in enumerate(blocks):
            outputs = 64 << stage
            first = BasicBlock(channels, outputs, 1 if stage == 0 else 2)
            rest = [BasicBlock(outputs, outputs) for _ in range(count - 1)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(first, *rest))
            channels = outputs
        self.avgpool = nn.GlobalAvgPool2d()
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Any) -> Any:
        return chain(self.children(), x)


def resnet18(classes: int = 1000) -> ResNet:
    """ResNet-18: two blocks a stage."""
    return ResNet((2, 2, 2, 2), classes)


def residual_net(classes: int = 10) -> nn.Sequential:
    """Two residual blocks for 32 x 32 images.

    Shape:
        x: (N, 3, 32, 32), y: (N, classes).
    """
    return nn.Sequential(
        {
            "conv1": nn.Conv2d(3, 32, 3, padding=1, bias=False),
            "bn1": nn.BatchNorm2d(32),
            "relu": nn.ReLU(),
            "block1": BasicBlock(32, 32),
            "block2": BasicBlock(32, 64, 2),
            "avgpool": nn.GlobalAvgPool2d(),
            "flatten": nn.Flatten(),
            "fc": nn.Linear(64, classes),
        }
    )
