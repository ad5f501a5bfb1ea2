"""The two-column network of Krizhevsky, Sutskever & Hinton 2012."""

from __future__ import annotations

from .. import nn


def alexnet(classes: int = 1000) -> nn.Sequential:
    """Five convolutions and three linear layers, for 227 x 227 images.

    The two columns, which the paper put on two GPUs, are the two groups of convolutions 2, 4 and 5;
    convolution 3 sees both. Local response normalisation is the paper's: alpha = 1e-4 per channel,
    which is 5e-4 over windows of 5 here.

    Shape:
        x: (N, 3, 227, 227), y: (N, classes).
    """

    def response_norm() -> nn.Module:
        return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2)

    return nn.Sequential(
        {
            "conv1": nn.Conv2d(3, 96, 11, stride=4),
            "relu1": nn.ReLU(),
            "norm1": response_norm(),
            "pool1": nn.MaxPool2d(3, 2),
            "conv2": nn.Conv2d(96, 256, 5, padding=2, groups=2),
            "relu2": nn.ReLU(),
            "norm2": response_norm(),
            "pool2": nn.MaxPool2d(3, 2),
            "conv3": nn.Conv2d(256, 384, 3, padding=1),
            "relu3": nn.ReLU(),
            "conv4": nn.Conv2d(384, 384, 3, padding=1, groups=2),
            "relu4": nn.ReLU(),
            "conv5": nn.Conv2d(384, 256, 3, padding=1, groups=2),
            "pool5": nn.MaxPool2d(3, 2, activation="relu"),
            "flatten": nn.Flatten(),
            "linear6": nn.Linear(256 * 6 * 6, 4096),
            "relu6": nn.ReLU(),
            "dropout6": nn.Dropout(0.5),
            "linear7": nn.Linear(4096, 4096),
            "relu7": nn.ReLU(),
            "dropout7": nn.Dropout(0.5),
            "linear8": nn.Linear(4096, classes),
        }
    )
