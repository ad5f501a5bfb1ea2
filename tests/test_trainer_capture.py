"""A trainer captures its steps: the bits of define-by-run, one warning where that cannot be."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import thalweg as tw
from thalweg import nn

X = np.random.default_rng(0).standard_normal((50, 6)).astype(np.float32)
LABELS = np.random.default_rng(1).integers(0, 3, 50)


def trainer(capture: bool, loss: Any = None, **options: Any) -> tw.Trainer:
    tw.manual_seed(5)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3))
    model = nn.Sequential(model, nn.Linear(8, 3))
    opt = tw.optim.Adam(model.parameters(), lr=0.01, max_norm=1.0)
    schedule = tw.optim.lr_scheduler.StepLR(opt, 7)
    options = {"scheduler": schedule, "schedule": "step", **options}
    return tw.Trainer(model, loss or nn.CrossEntropyLoss(), opt, capture=capture, **options)


def bits(run: tw.Trainer) -> list[bytes]:
    """Parameters, buffers, states and the history without its times."""
    arrays = list(run.model.state_dict().values())
    for entry in run.optimizer.state_dict()["state"].values():
        arrays += [a for a in entry.values() if isinstance(a, np.ndarray)]
    losses = [record[k] for record in run.history for k in record if k.endswith("loss")]
    return [a.tobytes() for a in arrays] + [np.float64(losses).tobytes()]


def test_captured_training_has_the_bits_of_define_by_run() -> None:
    """With a last mini-batch that is smaller, dropout, a schedule and evaluation in between."""
    runs = [trainer(capture) for capture in (True, False)]
    for run in runs:
        run.fit((X, LABELS), (X, LABELS), epochs=4, batch_size=8)
    assert bits(runs[0]) == bits(runs[1])
    assert runs[0]._update.replays == 4 * 7 - 2 * 2


def test_a_restored_run_continues_with_the_same_bits() -> None:
    whole, first, second = (trainer(True) for _ in range(3))
    whole.fit((X, LABELS), epochs=5, batch_size=10)
    first.fit((X, LABELS), epochs=3, batch_size=10)
    second.load_state_dict(first.state_dict())
    second.fit((X, LABELS), epochs=2, batch_size=10)
    assert bits(whole) == bits(second)


def test_a_loss_that_reads_values_is_warned_of_once_and_runs_define_by_run() -> None:
    def loss(y: Any, target: Any) -> Any:
        value = tw.functional.cross_entropy(y, target)
        return value * 2 if value.item() > 1 else value

    runs = [trainer(capture, loss) for capture in (True, False)]
    with pytest.warns(UserWarning, match="item reads a value.*define-by-run") as caught:
        runs[0].fit((X, LABELS), epochs=2, batch_size=8)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        runs[1].fit((X, LABELS), epochs=2, batch_size=8)
    assert bits(runs[0]) == bits(runs[1])


def test_another_loss_is_used_from_the_next_step_on() -> None:
    runs = [trainer(capture) for capture in (True, False)]
    for run in runs:
        run.fit((X, LABELS), epochs=1, batch_size=10)
        run.loss = nn.CrossEntropyLoss(label_smoothing=0.2)
        run.fit((X, LABELS), epochs=1, batch_size=10)
    assert bits(runs[0]) == bits(runs[1])


def test_summed_losses_and_targets_that_are_arrays() -> None:
    runs = [trainer(capture, nn.MSELoss(reduction="sum")) for capture in (True, False)]
    for run in runs:
        run.fit((X, X[:, :3]), epochs=2, batch_size=20)
    assert bits(runs[0]) == bits(runs[1])
    assert runs[0]._update.replays == 2
