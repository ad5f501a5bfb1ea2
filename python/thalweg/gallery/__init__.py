"""Published figures, made again: `thalweg gallery NAME`."""

from __future__ import annotations

from .batchnorm_mnist import batchnorm_mnist

GALLERY = {"batchnorm-mnist": batchnorm_mnist}

__all__ = ["GALLERY", "batchnorm_mnist"]
