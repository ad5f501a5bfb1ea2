"""Published figures, made again: `thalweg gallery NAME`."""

from __future__ import annotations

from . import batchnorm_mnist

GALLERY = {"batchnorm-mnist": batchnorm_mnist.make}
