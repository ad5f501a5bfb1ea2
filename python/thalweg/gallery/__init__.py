"""Published figures, made again: `thalweg gallery NAME`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from . import batchnorm_inception, batchnorm_mnist


class Figure(NamedTuple):
    """make(data, output, steps=, seed=) writes it; data is the name of the folder that it reads."""

    make: Callable[..., dict[str, list[Any]]]
    data: str


GALLERY = {
    "batchnorm-mnist": Figure(batchnorm_mnist.make, "mnist"),
    "batchnorm-inception": Figure(batchnorm_inception.make, "cifar-10-batches-bin"),
}
