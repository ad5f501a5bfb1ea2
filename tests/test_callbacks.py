"""Callbacks, history and curves: when a run stops, what it keeps and shows."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from runs import (
    TRAIN,
    VALIDATION,
    assert_same_weights,
    trainer,
    weights,
)
from thalweg.callbacks import Callback, Checkpoint, CSVLogger, EarlyStopping, Progress, checkpoints
from thalweg.data import ArrayDataset
from thalweg.history import History, Record
from thalweg.plots import learning_curves
from thalweg.serialization import CheckpointError, load
from thalweg.trainer import Trainer

# --- callbacks ------------------------------------------------------------------------------------


def scripted(run: Trainer, losses: list[float]) -> Trainer:
    """`run` with these validation losses instead of measured ones."""
    rest: Iterator[float] = iter(losses)
    run.evaluate = lambda *_, **__: {"loss": next(rest)}  # type: ignore[method-assign]
    return run


NAN = float("nan")
STOPS: dict[str, tuple[EarlyStopping, list[float], int, int]] = {
    # callback, validation losses, epochs trained, epoch whose weights remain
    "improves to the end": (EarlyStopping(2), [5, 4, 3, 2], 4, 4),
    "rises at once": (EarlyStopping(2), [1, 2, 3, 4], 3, 1),
    "recovers in time": (EarlyStopping(2), [3, 4, 2, 5, 6, 1], 5, 3),
    "stays equal": (EarlyStopping(2), [1, 1, 1, 1], 3, 1),
    "improves too little": (EarlyStopping(2, min_delta=0.5), [3, 2.9, 2.6, 1], 3, 1),
    "is no number": (EarlyStopping(2), [2, NAN, NAN, 1], 3, 1),
    "is no number at first": (EarlyStopping(2), [NAN, 2, 3, 1], 4, 4),
    "ends before patience": (EarlyStopping(9), [1, 2, 3], 3, 1),
}


@pytest.mark.parametrize("stop, losses, trained, best", STOPS.values(), ids=STOPS)
def test_early_stopping_ends_at_the_validation_minimum(
    stop: EarlyStopping, losses: list[float], trained: int, best: int
) -> None:
    taken: list[dict[str, np.ndarray]] = []

    class Snapshots(Callback):
        def on_epoch_end(self, trainer: Trainer, record: Record) -> None:
            taken.append(weights(trainer))

    run = scripted(trainer(stop, Snapshots()), losses)
    run.fit(TRAIN, VALIDATION, epochs=len(losses))
    assert run.epoch == trained and stop.best_epoch == best
    assert_same_weights(weights(run), taken[best - 1])


def test_a_run_that_stopped_stays_stopped_when_restored(tmp_path: Path) -> None:
    first = scripted(trainer(EarlyStopping(2), Checkpoint(tmp_path)), [1, 2, 3])
    first.fit(TRAIN, VALIDATION, epochs=9)
    resumed = trainer(EarlyStopping(2), Checkpoint(tmp_path))
    resumed.restore(tmp_path)
    resumed.fit(TRAIN, VALIDATION, epochs=6)
    assert resumed.epoch == 3
    assert_same_weights(weights(first), weights(resumed))


def test_early_stopping_counts_on_after_a_restore(tmp_path: Path) -> None:
    scripted(trainer(EarlyStopping(3), Checkpoint(tmp_path)), [1, 2]).fit(
        TRAIN, VALIDATION, epochs=2
    )
    resumed = scripted(trainer(EarlyStopping(3)), [3, 4, 5])
    resumed.restore(tmp_path)
    resumed.fit(TRAIN, VALIDATION, epochs=9)
    assert resumed.epoch == 4


@pytest.mark.parametrize(
    "options, kept", [({}, [5, 4]), ({"keep": 1}, [5]), ({"every": 2, "keep": 9}, [5, 4, 2])]
)
def test_checkpoints_are_kept_as_asked(
    tmp_path: Path, options: dict[str, int], kept: list[int]
) -> None:
    trainer(Checkpoint(tmp_path / "deep" / "down", **options)).fit(TRAIN, epochs=5)
    found = [load(path)["epoch"] for path in checkpoints(tmp_path / "deep" / "down")]
    assert found == kept


def test_a_new_run_does_not_mix_with_an_earlier_ones_checkpoints(tmp_path: Path) -> None:
    trainer(Checkpoint(tmp_path)).fit(TRAIN, epochs=1)
    with pytest.raises(FileExistsError, match=r"checkpoint-000001.* of an earlier run"):
        trainer(Checkpoint(tmp_path)).fit(TRAIN, epochs=1)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_crash_while_writing_leaves_the_run_restorable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    whole = trainer()
    whole.fit(TRAIN, epochs=3)
    crashed = trainer(Checkpoint(tmp_path))
    crashed.fit(TRAIN, epochs=2)
    pid = os.fork()
    if pid == 0:
        setattr(os, call, lambda *_: os._exit(0))
        crashed.callbacks[0].on_epoch_end(crashed, {})
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    assert list(tmp_path.glob(".*.tmp"))
    resumed = trainer(Checkpoint(tmp_path))
    resumed.restore(tmp_path)
    resumed.fit(TRAIN, epochs=1)
    assert not list(tmp_path.glob(".*.tmp"))
    assert_same_weights(weights(whole), weights(resumed))


def test_restoring_from_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected a whole checkpoint, found 0"):
        trainer().restore(tmp_path)
    with pytest.raises(FileNotFoundError):
        trainer().restore(tmp_path / "none.safetensors")


def test_the_csv_is_the_history(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    run = trainer(CSVLogger(path), Checkpoint(tmp_path))
    history = run.fit(TRAIN, VALIDATION, epochs=3)
    resumed = trainer(CSVLogger(path), Checkpoint(tmp_path))
    path.write_text("damaged by the crash")
    resumed.restore(tmp_path)
    resumed.fit(TRAIN, VALIDATION, epochs=2)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == history.columns
    assert [float(row["val_loss"]) for row in rows] == resumed.history["val_loss"]
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_one_plain_line_per_epoch() -> None:
    stream = io.StringIO()
    trainer(Progress(stream)).fit(TRAIN, VALIDATION, epochs=3)
    header, *lines = stream.getvalue().splitlines()
    assert header.split("  ")[0] == "epoch" and "validation accuracy" in header
    assert [line.split()[0] for line in lines] == ["1/3", "2/3", "3/3"]
    assert {len(line) for line in lines} == {len(header)}
    assert stream.getvalue().isascii() and "\r" not in stream.getvalue()


def test_progress_draws_a_bar_on_a_terminal_and_leaves_the_table() -> None:
    pytest.importorskip("tqdm")
    stream = Terminal()
    trainer(Progress(stream)).fit(TRAIN, epochs=2, batch_size=30)
    assert "epoch 2/2" in stream.getvalue() and "/3 [" in stream.getvalue()
    lines = [line.split("\r")[-1].split() for line in stream.getvalue().split("\n")]
    assert [line[0] for line in lines if line] == ["epoch", "1/2", "2/2"]


def test_progress_without_tqdm_is_the_table_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    stream = Terminal()
    trainer(Progress(stream)).fit(TRAIN, epochs=1)
    assert "\r" not in stream.getvalue() and len(stream.getvalue().splitlines()) == 2


# --- history and curves ---------------------------------------------------------------------------


def test_history_names_what_was_measured() -> None:
    history = History([{"epoch": 1, "train_loss": 2.0}, {"epoch": 2, "train_loss": 1.0}])
    with pytest.raises(KeyError, match="measured were epoch, train_loss"):
        history["val_loss"]


@pytest.mark.parametrize("validation", [None, VALIDATION], ids=["training only", "validation"])
def test_learning_curves_are_a_picture(tmp_path: Path, validation: ArrayDataset | None) -> None:
    pytest.importorskip("matplotlib")
    history = trainer().fit(TRAIN, validation, epochs=2)
    learning_curves(history, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_curves_of_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the history is empty"):
        learning_curves(History(), tmp_path / "curves.png")
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_beyond_the_restored_one_pushes_no_newer_one_out(tmp_path: Path) -> None:
    beyond = tmp_path / "checkpoint-000009.safetensors"
    beyond.write_bytes(b"damaged")
    run = trainer(Checkpoint(tmp_path, keep=1))
    run.epoch = 1
    run.fit(TRAIN, epochs=1)
    assert checkpoints(tmp_path) == [beyond, tmp_path / "checkpoint-000002.safetensors"]
