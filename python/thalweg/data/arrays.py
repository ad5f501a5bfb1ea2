"""Data sets in memory, and cutting one into training, validation and test sets."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..backend import Array
from .formats import DataError, check_labels


class ArrayDataset:
    """Samples `x` (N, …) and their targets `y` (N, …), two arrays of one length.

    Args:
        x: samples along axis 0; anything NumPy turns into an array.
        y: targets; one axis of integers means class labels.
        classes: number of classes of labels. Default: the largest label plus one; None for
            targets that are no labels.

    Errors: DataError for an empty set, lengths that differ, or labels outside 0 … classes-1.

    >>> data = ArrayDataset(np.zeros((4, 2)), np.array([0, 1, 2, 1]))
    >>> len(data), data.classes
    (4, 3)
    """

    def __init__(self, x: npt.ArrayLike, y: npt.ArrayLike, *, classes: int | None = None) -> None:
        self.x: Array = np.asarray(x)
        self.y: Array = np.asarray(y)
        if self.x.ndim == 0 or self.y.ndim == 0:
            raise DataError(
                f"ArrayDataset: expected samples along axis 0, found x of shape {self.x.shape} "
                f"and y of shape {self.y.shape}"
            )
        if len(self.x) != len(self.y):
            raise DataError(
                f"ArrayDataset: expected as many targets as samples, found {len(self.x)} samples "
                f"and {len(self.y)} targets"
            )
        if len(self.x) == 0:
            raise DataError("ArrayDataset: expected at least one sample, found none")
        if self.y.ndim == 1 and self.y.dtype.kind in "iu":
            classes = int(self.y.max()) + 1 if classes is None else classes
            check_labels(self.y, classes, "ArrayDataset")
        elif classes is not None:
            raise DataError(
                f"ArrayDataset: expected labels as one axis of integers for classes={classes}, "
                f"found {self.y.dtype} of shape {self.y.shape}"
            )
        self.classes = classes

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Any) -> tuple[Any, Any]:
        """Sample(s) and target(s) at an index, slice or index array."""
        return self.x[index], self.y[index]


class Splits(NamedTuple):
    """The three sets of an experiment; validation is None where no samples were set aside."""

    train: ArrayDataset
    validation: ArrayDataset | None
    test: ArrayDataset


def split_off(
    dataset: ArrayDataset, share: float, seed: int = 0
) -> tuple[ArrayDataset, ArrayDataset | None]:
    """Set `share` of the samples aside: (the rest, the share), drawn by a seeded permutation.

    Args:
        share: fraction in [0, 1), rounded to whole samples; 0 sets nothing aside (None).

    Errors: ValueError for a share outside [0, 1); DataError where a part would be empty.
    """
    if not 0 <= share < 1:
        raise ValueError(f"split_off: share must be in [0, 1), got {share}")
    if share == 0:
        return dataset, None
    count = round(share * len(dataset))
    if not 0 < count < len(dataset):
        raise DataError(
            f"split_off: expected enough samples for a share of {share}, found {len(dataset)}"
        )
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(dataset))

    # The order inside each part stays that of the data set.
    def part(index: Array) -> ArrayDataset:
        return ArrayDataset(*dataset[np.sort(index)], classes=dataset.classes)

    return part(order[count:]), part(order[:count])
