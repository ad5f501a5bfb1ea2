"""Transforms of samples that are fitted on the training set and then applied to every set."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import Array
from .arrays import ArrayDataset, Splits
from .formats import DataError


class Standardise:
    """Zero mean and unit variance: `(x - mean) / std`, with mean and std of the training samples.

    A feature without variance is only centred.

    Args:
        axis: axes of `x` over which one mean and one std are shared. 0 (default) treats each
            feature on its own; None uses one pair for all, which suits images, whose border
            pixels hardly vary; (0, 2, 3) is per channel of (N, C, H, W).

    Reference: LeCun, Bottou, Orr & Müller, "Efficient BackProp", 1998, section 4.3.

    >>> scale = Standardise().fit(np.array([[0.0, 5.0], [2.0, 5.0]]))
    >>> scale(np.array([[4.0, 5.0]]))
    array([[3., 0.]])
    """

    mean: Array
    std: Array

    def __init__(self, axis: int | tuple[int, ...] | None = 0) -> None:
        self.axis = axis

    def fit(self, x: Array) -> Standardise:
        """Take mean and std, computed in float64, from training samples `x` (N, …)."""
        if len(x) == 0:
            raise DataError("Standardise: expected at least one sample to fit on, found none")
        self.mean = np.asarray(x.mean(axis=self.axis, keepdims=True, dtype=np.float64))
        std = np.asarray(x.std(axis=self.axis, keepdims=True, dtype=np.float64))
        # A constant feature's std is rounding noise, which must not be blown up to one.
        self.std = np.where(std > 1e-12 * np.abs(self.mean), std, 1.0)
        return self

    def __call__(self, x: Array) -> Array:
        """`x` standardised, same shape and dtype."""
        if not hasattr(self, "mean"):
            raise RuntimeError("Standardise: call fit(x) on the training samples first")
        scaled: Array = (x - self.mean.astype(x.dtype)) / self.std.astype(x.dtype)
        return scaled

    def state_dict(self) -> dict[str, Any]:
        """The fitted numbers, which inference on new samples needs."""
        return {"axis": self.axis, "mean": self.mean, "std": self.std}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.axis, self.mean, self.std = state["axis"], state["mean"], state["std"]


def standardise(splits: Splits, axis: int | tuple[int, ...] | None = 0) -> Splits:
    """All sets of `splits` under a `Standardise(axis)` fitted on the training set alone."""
    scale = Standardise(axis).fit(splits.train.x)

    def transformed(dataset: ArrayDataset) -> ArrayDataset:
        return ArrayDataset(scale(dataset.x), dataset.y, classes=dataset.classes)

    return Splits(
        transformed(splits.train),
        None if splits.validation is None else transformed(splits.validation),
        transformed(splits.test),
    )
