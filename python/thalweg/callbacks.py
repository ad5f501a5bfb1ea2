"""What happens around epochs: progress, early stopping, checkpoints, a table on disk.

A callback sees the trainer after each event. Those that write do so on rank 0 alone; the others
run on every rank on the same numbers, so that all ranks decide alike.
"""

from __future__ import annotations

import csv
import io
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from .files import atomic_write, remove_leftovers
from .history import Record
from .serialization import CheckpointError, load, save

if TYPE_CHECKING:
    from .trainer import Trainer


class Callback:
    """Base of callbacks; every event does nothing unless overridden."""

    root_only = False  # called on rank 0 alone
    order = 0  # of call; whoever stores the others' state comes last

    def on_fit_start(self, trainer: Trainer) -> None: ...
    def on_batch_end(self, trainer: Trainer) -> None: ...
    def on_epoch_end(self, trainer: Trainer, record: Record) -> None: ...
    def on_fit_end(self, trainer: Trainer) -> None: ...

    def state_dict(self) -> dict[str, Any]:
        """What a restored run needs, as a tree for `tw.save`."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class EarlyStopping(Callback):
    """Stop at the validation minimum: the best epoch's weights are restored when `fit` ends.

    Args:
        patience: epochs without improvement after which the run stops, at least 1.
        min_delta: what counts as an improvement: a loss below best - min_delta.
        monitor: column of the history whose minimum is sought.

    Attributes: best (its value), best_epoch, wait (epochs since).

    A run that was stopped stays stopped when it is restored. Reference: Prechelt, "Early stopping,
    but when?", 1998.
    """

    def __init__(
        self, patience: int = 10, *, min_delta: float = 0.0, monitor: str = "val_loss"
    ) -> None:
        if patience < 1:
            raise ValueError(f"EarlyStopping: patience must be at least 1, got {patience}")
        if min_delta < 0:
            raise ValueError(f"EarlyStopping: min_delta must not be negative, got {min_delta}")
        self.patience, self.min_delta, self.monitor = patience, min_delta, monitor
        self.best = float("inf")
        self.best_epoch = 0
        self.wait = 0
        self.weights: dict[str, Any] | None = None

    def on_fit_start(self, trainer: Trainer) -> None:
        trainer.stop_requested |= self.wait >= self.patience

    def on_epoch_end(self, trainer: Trainer, record: Record) -> None:
        if self.monitor not in record:
            raise ValueError(
                f"EarlyStopping: expected '{self.monitor}' among {', '.join(record)}; "
                "give fit(…) validation data"
            )
        # A NaN is no improvement, whatever the best is.
        if record[self.monitor] < self.best - self.min_delta:
            self.best, self.best_epoch, self.wait = record[self.monitor], trainer.epoch, 0
            self.weights = {name: a.copy() for name, a in trainer.model.state_dict().items()}
        else:
            self.wait += 1
            trainer.stop_requested |= self.wait >= self.patience

    def on_fit_end(self, trainer: Trainer) -> None:
        if self.weights is not None:
            trainer.model.load_state_dict(self.weights)

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("best", "best_epoch", "wait", "weights")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self.wait, self.weights = state["wait"], state["weights"]


class Checkpoint(Callback):
    """Write the whole state of the run into `directory` after epochs, each file atomically.

    Args:
        directory: made if need be; belongs to one run.
        every: epochs between checkpoints; the last epoch of `fit` always has one.
        keep: how many of the newest stay, at least 1.

    Errors: FileExistsError where a new run meets the checkpoints of another one.
    """

    root_only = True
    order = 1

    def __init__(self, directory: str | os.PathLike[str], *, every: int = 1, keep: int = 2) -> None:
        if every < 1 or keep < 1:
            raise ValueError(
                f"Checkpoint: every and keep must be at least 1, got {every} and {keep}"
            )
        self.directory, self.every, self.keep = Path(directory), every, keep

    def on_fit_start(self, trainer: Trainer) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.directory)
        if trainer.epoch == 0 and (found := checkpoints(self.directory)):
            raise FileExistsError(
                f"{self.directory}: holds {found[0].name} of an earlier run; restore it or choose "
                "another directory"
            )

    def on_epoch_end(self, trainer: Trainer, record: Record) -> None:
        last = trainer.epoch == trainer.last_epoch or trainer.stop_requested
        if trainer.epoch % self.every and not last:
            return
        newest = self.directory / f"checkpoint-{trainer.epoch:06}.safetensors"
        save(newest, **trainer.state_dict())
        # What lies beyond is damaged or superseded, and must not push the good ones out.
        older = [path for path in checkpoints(self.directory) if path <= newest]
        for path in older[self.keep :]:
            path.unlink(missing_ok=True)


def checkpoints(directory: str | os.PathLike[str]) -> list[Path]:
    """The checkpoint files of a directory, newest first."""
    return sorted(Path(directory).glob("checkpoint-*.safetensors"), reverse=True)


def load_newest(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """The state in the newest whole checkpoint; each damaged one before it is a warning."""
    found = checkpoints(directory)
    for path in found:
        if (state := _load_whole(path)) is not None:
            return state
    raise CheckpointError(
        f"{directory}: expected a whole checkpoint, found {len(found)} files, none of them whole"
    )


def _load_whole(path: Path) -> dict[str, Any] | None:
    try:
        return load(path)
    except CheckpointError as error:
        warnings.warn(f"skipped a damaged checkpoint: {error}", RuntimeWarning, stacklevel=3)
        return None


class CSVLogger(Callback):
    """The history as a CSV file, a line after each epoch; a restored run starts with its past."""

    root_only = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.columns: list[str] = []

    def on_fit_start(self, trainer: Trainer) -> None:
        self.columns = []

    def on_epoch_end(self, trainer: Trainer, record: Record) -> None:
        if not self.columns:
            self.columns = trainer.history.columns
            text = ",".join(self.columns) + "\n" + "".join(map(self._line, trainer.history))
            with atomic_write(self.path) as file:
                file.write(text.encode())
        else:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(self._line(record))

    def _line(self, record: Record) -> str:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow([record.get(c, "") for c in self.columns])
        return line.getvalue()


class Progress(Callback):
    """A table on the terminal, one line per epoch.

    With tqdm installed (extra `progress`) a terminal also gets a bar of the epoch's mini-batches.
    """

    root_only = True
    COLUMNS = (
        ("train_loss", "training loss", ".4f"),
        ("val_loss", "validation loss", ".4f"),
        ("val_accuracy", "validation accuracy", ".2%"),
        ("samples_per_second", "samples/s", ",.0f"),
    )

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = sys.stdout if stream is None else stream
        self.bar: Any = None
        self.header_due = True

    def on_fit_start(self, trainer: Trainer) -> None:
        self.bar, self.header_due = None, True

    def on_batch_end(self, trainer: Trainer) -> None:
        if self.bar is None:
            self.bar = self._new_bar(trainer)
        self.bar.update()

    def on_epoch_end(self, trainer: Trainer, record: Record) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None
        columns = [column for column in self.COLUMNS if column[0] in record]
        epoch = f"{trainer.epoch}/{trainer.last_epoch}"
        width = max(len("epoch"), len(f"{trainer.last_epoch}/{trainer.last_epoch}"))
        if self.header_due:
            self.header_due = False
            titles = "  ".join(title for _, title, _ in columns)
            print(f"{'epoch':>{width}}  {titles}", file=self.stream)
        cells = "  ".join(f"{format(record[name], spec):>{len(t)}}" for name, t, spec in columns)
        print(f"{epoch:>{width}}  {cells}", file=self.stream, flush=True)

    def _new_bar(self, trainer: Trainer) -> Any:
        try:
            from tqdm import tqdm
        except ImportError:
            return _NoBar()
        return tqdm(
            desc=f"epoch {trainer.epoch + 1}/{trainer.last_epoch}",
            total=trainer.batches,
            file=self.stream,
            unit="batch",
            leave=False,
            disable=None,  # where the stream is no terminal
            dynamic_ncols=True,
        )


class _NoBar:
    def update(self) -> None: ...
    def close(self) -> None: ...
