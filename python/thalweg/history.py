"""What a training run has measured, epoch by epoch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias

Record: TypeAlias = "dict[str, float]"


class History:
    """One record per epoch, in order; `history["val_loss"]` is a column of it.

    Columns: epoch (counted from 1), train_loss, val_loss and val_accuracy (with validation data,
    the accuracy for class labels), lr, seconds, samples_per_second.

    >>> history = History([{"epoch": 1, "train_loss": 0.5}, {"epoch": 2, "train_loss": 0.25}])
    >>> history["train_loss"]
    [0.5, 0.25]
    """

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self.records: list[Record] = list(records)

    @property
    def columns(self) -> list[str]:
        """Names of everything that was measured in any epoch."""
        return list(dict.fromkeys(name for record in self.records for name in record))

    def __getitem__(self, column: str) -> list[float]:
        if column not in self.columns:
            raise KeyError(f"{column!r}; measured were {', '.join(self.columns) or 'no epochs'}")
        return [record.get(column, float("nan")) for record in self.records]

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def __repr__(self) -> str:
        last = self.records[-1] if self.records else {}
        return f"History({len(self)} epochs, last {last})"
