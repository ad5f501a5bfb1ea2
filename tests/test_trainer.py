"""Trainer: what a run measures and restores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import thalweg as tw
from runs import (
    CLASSES,
    TRAIN,
    VALIDATION,
    assert_same_weights,
    net,
    trainer,
    weights,
    without_times,
)
from thalweg.callbacks import Callback, Checkpoint, EarlyStopping, checkpoints
from thalweg.data import DataLoader
from thalweg.optim import lr_scheduler
from thalweg.serialization import load
from thalweg.trainer import Trainer

# --- fit and evaluate -----------------------------------------------------------------------------


def test_fit_learns_and_measures() -> None:
    run = trainer()
    history = run.fit(TRAIN, VALIDATION, epochs=15, batch_size=16)
    assert history is run.history and len(history) == run.epoch == 15
    assert history["epoch"] == list(range(1, 16))
    assert history["train_loss"][-1] < 0.5 * history["train_loss"][0]
    assert history["val_accuracy"][-1] > 0.8
    assert set(history["lr"]) == {0.01}
    assert min(history["samples_per_second"]) > 0


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("batch_size", [7, 40, 100])
def test_evaluate_is_the_mean_over_samples(reduction: str, batch_size: int) -> None:
    run = trainer()
    run.loss = tw.nn.CrossEntropyLoss(reduction=reduction)
    run = Trainer(run.model, run.loss, run.optimizer)
    logits = run.model.eval()(tw.Tensor(VALIDATION.x)).data.astype(np.float64)
    log_sum = np.log(np.exp(logits).sum(axis=1))
    expected = (log_sum - logits[np.arange(len(VALIDATION)), VALIDATION.y]).mean()
    result = run.evaluate(VALIDATION, batch_size=batch_size)
    assert result["loss"] == pytest.approx(expected, rel=1e-5)
    assert result["accuracy"] == (logits.argmax(axis=1) == VALIDATION.y).mean()


def test_a_sum_over_samples_makes_steps_as_many_times_as_large() -> None:
    def stepped(reduction: str, lr: float) -> dict[str, np.ndarray]:
        model = net()
        loss = tw.nn.CrossEntropyLoss(reduction=reduction)
        run = Trainer(model, loss, tw.optim.SGD(model.parameters(), lr=lr))
        history = run.fit(TRAIN, epochs=1, batch_size=30)
        assert history["train_loss"][0] == pytest.approx(1.3, abs=0.5)  # per sample either way
        return weights(run)

    mean, summed = stepped("mean", 0.3), stepped("sum", 0.01)
    for name in mean:
        np.testing.assert_allclose(mean[name], summed[name], rtol=1e-4, atol=1e-6)


def test_evaluate_changes_nothing() -> None:
    run = trainer()
    run.fit(TRAIN, epochs=1)
    before = weights(run)
    run.model.train()
    first = run.evaluate(VALIDATION)
    assert run.evaluate(VALIDATION) == first
    assert run.model.training
    assert_same_weights(weights(run), before)


def test_regression_has_a_loss_and_no_accuracy() -> None:
    x = np.random.default_rng(0).normal(size=(64, 2))
    model = tw.nn.Linear(2, 1, dtype=np.float64)
    run = Trainer(model, tw.nn.MSELoss(), tw.optim.SGD(model.parameters(), lr=0.1))
    history = run.fit((x, x @ [[2.0], [-1.0]]), (x, x @ [[2.0], [-1.0]]), epochs=30, batch_size=16)
    assert "val_accuracy" not in history.columns
    assert history["val_loss"][-1] < 1e-6
    np.testing.assert_allclose(model.weight.data, [[2, -1]], atol=1e-2)


def test_runs_repeat_and_depend_on_the_seed() -> None:
    def run(seed: int) -> dict[str, np.ndarray]:
        made = trainer(dropout=0.3, seed=seed)
        made.fit(TRAIN, epochs=2)
        return weights(made)

    first = run(1)
    assert_same_weights(first, run(1))
    assert any(first[name].tobytes() != run(2)[name].tobytes() for name in first)


def test_fit_adds_epochs_to_those_already_done() -> None:
    once, twice = trainer(dropout=0.2), trainer(dropout=0.2)
    once.fit(TRAIN, epochs=5)
    twice.fit(TRAIN, epochs=2)
    twice.fit(TRAIN, epochs=3)
    assert twice.history["epoch"] == [1, 2, 3, 4, 5]
    assert_same_weights(weights(once), weights(twice))


def test_a_loader_of_ones_own_is_used_as_it_is() -> None:
    loader = DataLoader(TRAIN, 9, mode="batches", seed=4)
    run = trainer()
    run.fit(loader, loader, epochs=1)
    assert run.batches == 10


def test_the_schedule_steps_as_declared() -> None:
    def step(optimizer: Any) -> Any:
        return lr_scheduler.StepLR(optimizer, 2, gamma=0.5)

    by_epoch, by_step = trainer(scheduler=step), trainer(scheduler=step, schedule="step")
    assert by_epoch.fit(TRAIN, epochs=5)["lr"] == [0.01, 0.01, 0.005, 0.005, 0.0025]
    by_step.fit(TRAIN, epochs=1, batch_size=18)
    assert by_step.optimizer.param_groups[0]["lr"] == 0.01 * 0.5**2


def test_reduce_on_plateau_sees_the_validation_loss() -> None:
    run = trainer(scheduler=lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0, factor=0.1))
    losses = iter([1.0, 2.0, 0.5, 0.6])
    run.evaluate = lambda *_, **__: {"loss": next(losses)}  # type: ignore[method-assign]
    np.testing.assert_allclose(run.fit(TRAIN, VALIDATION, epochs=4)["lr"], [0.01, 0.01, 1e-3, 1e-3])


BAD_ARGUMENTS: dict[str, tuple[Callable[[], Any], str]] = {
    "schedule": (lambda: trainer(schedule="batch"), "schedule must be one of .* got 'batch'"),
    "seed": (lambda: trainer(seed=-1), r"seed must be in \[0, 2\*\*64\), got -1"),
    "epochs": (lambda: trainer().fit(TRAIN, epochs=-1), "epochs must not be negative, got -1"),
    "batch_size": (lambda: trainer().fit(TRAIN, epochs=1, batch_size=0), "batch_size must be at"),
    "mode": (lambda: trainer().fit(TRAIN, epochs=1, mode="x"), "mode must be one of"),
    "plateau by step": (
        lambda: trainer(scheduler=lr_scheduler.ReduceLROnPlateau, schedule="step"),
        "ReduceLROnPlateau needs schedule='epoch', got 'step'",
    ),
    "another model's optimizer": (
        lambda: Trainer(net(), tw.nn.CrossEntropyLoss(), trainer().optimizer),
        "parameter 0 of the optimizer is not one of the model's",
    ),
    "no data": (lambda: trainer().fit(([], []), epochs=1), "at least one sample"),
    "negative labels": (lambda: trainer().fit((TRAIN.x, TRAIN.y - 1), epochs=1), "found -1"),
    "patience": (lambda: EarlyStopping(0), "patience must be at least 1, got 0"),
    "min_delta": (lambda: EarlyStopping(1, min_delta=-1), "min_delta must not be negative"),
    "keep": (lambda: Checkpoint("x", keep=0), "at least 1, got 1 and 0"),
    "every": (lambda: Checkpoint("x", every=0), "at least 1, got 0 and 2"),
    "no validation": (lambda: trainer(EarlyStopping()).fit(TRAIN, epochs=1), "expected 'val_loss'"),
}


@pytest.mark.parametrize("call, message", BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS)
def test_bad_arguments_are_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("data", [None, TRAIN.x, (TRAIN.x, TRAIN.y, TRAIN.y)], ids=type)
def test_what_is_no_data_is_refused(data: Any) -> None:
    with pytest.raises(TypeError, match="expected an ArrayDataset, a pair"):
        trainer().fit(data, epochs=1)


def test_half_an_epoch_is_refused() -> None:
    with pytest.raises(TypeError, match=r"epochs must be an integer, got 1\.5"):
        trainer().fit(TRAIN, epochs=1.5)  # type: ignore[arg-type]


def test_labels_beyond_the_models_outputs_are_refused() -> None:
    run = trainer()
    before = weights(run)
    with pytest.raises(ValueError, match="target"):
        run.fit((TRAIN.x[:8], np.full(8, CLASSES)), epochs=1)
    for name in ("0.weight", "3.bias"):
        assert weights(run)[name].tobytes() == before[name].tobytes()


# --- restoring ------------------------------------------------------------------------------------

SCHEDULES: dict[str, dict[str, Any]] = {
    "none": {},
    "per epoch": {"scheduler": lambda o: lr_scheduler.CosineAnnealingLR(o, 6)},
    "per step": {
        "scheduler": lambda o: lr_scheduler.OneCycleLR(o, 0.02, total_steps=200),
        "schedule": "step",
    },
    "plateau": {"scheduler": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0)},
}


@pytest.mark.parametrize("options", SCHEDULES.values(), ids=SCHEDULES)
def test_a_restored_run_continues_bit_for_bit(tmp_path: Path, options: dict[str, Any]) -> None:
    def run(directory: Path | None) -> Trainer:
        callbacks = [EarlyStopping(50)] + ([Checkpoint(directory)] if directory else [])
        return trainer(*callbacks, dropout=0.25, seed=3, **options)

    whole = run(None)
    whole.fit(TRAIN, VALIDATION, epochs=6, batch_size=16)
    run(tmp_path).fit(TRAIN, VALIDATION, epochs=3, batch_size=16)
    resumed = run(tmp_path)
    resumed.restore(tmp_path)
    assert resumed.epoch == 3
    resumed.fit(TRAIN, VALIDATION, epochs=3, batch_size=16)
    assert_same_weights(weights(whole), weights(resumed))
    assert without_times(whole.history) == without_times(resumed.history)


def test_an_interrupted_epoch_is_repeated_exactly(tmp_path: Path) -> None:
    class Interrupt(Callback):
        def on_batch_end(self, trainer: Trainer) -> None:
            if trainer.epoch == 2:
                raise KeyboardInterrupt

    whole = trainer(dropout=0.25)
    whole.fit(TRAIN, epochs=4)
    with pytest.raises(KeyboardInterrupt):
        trainer(Checkpoint(tmp_path), Interrupt(), dropout=0.25).fit(TRAIN, epochs=4)
    resumed = trainer(Checkpoint(tmp_path), dropout=0.25)
    resumed.restore(tmp_path)
    resumed.fit(TRAIN, epochs=2)
    assert_same_weights(weights(whole), weights(resumed))


def test_a_damaged_checkpoint_costs_its_epochs_and_nothing_else(tmp_path: Path) -> None:
    whole = trainer(Checkpoint(tmp_path))
    whole.fit(TRAIN, epochs=3)
    newest = checkpoints(tmp_path)[0]
    newest.write_bytes(newest.read_bytes()[:1000])
    resumed = trainer(Checkpoint(tmp_path))
    with pytest.warns(RuntimeWarning, match=newest.name):
        resumed.restore(tmp_path)
    assert resumed.epoch == 2
    resumed.fit(TRAIN, epochs=1)
    assert_same_weights(weights(whole), weights(resumed))
    assert load(newest)["epoch"] == 3


def wrong_model(state: dict[str, Any]) -> None:
    state["model"]["0.weight"] = np.zeros((1, 1), np.float32)


def wrong_optimizer(state: dict[str, Any]) -> None:
    state["optimizer"]["param_groups"] = []


MISFITS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another model": wrong_model,
    "another optimizer": wrong_optimizer,
    "no trainer's state": lambda state: state.pop("callbacks"),
    "a scheduler": lambda state: state.update(scheduler={}),
    "another generator": lambda state: state.update(random={"seed": 0}),
}


@pytest.mark.parametrize("spoil", MISFITS.values(), ids=MISFITS)
def test_a_state_that_does_not_fit_changes_nothing(spoil: Callable[[dict[str, Any]], Any]) -> None:
    run, other = trainer(), trainer(seed=9)
    other.fit(TRAIN, epochs=2)
    state = other.state_dict()
    run.fit(TRAIN, epochs=1)
    before, rate = weights(run), run.optimizer.param_groups[0]["lr"]
    spoil(state)
    with pytest.raises((ValueError, KeyError, TypeError)):
        run.load_state_dict(state)
    assert_same_weights(weights(run), before)
    assert (run.epoch, run.seed, run.optimizer.param_groups[0]["lr"]) == (1, 0, rate)
