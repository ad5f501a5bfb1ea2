"""Trainer: fit and evaluate a model, alone or data-parallel under mpirun."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .autograd import no_grad
from .backend import Array
from .callbacks import Callback
from .capture import capture as captured
from .data import ArrayDataset, DataLoader
from .distributed import Communicator, DataParallel, world
from .history import History, Record
from .optim.lr_scheduler import ReduceLROnPlateau
from .random import default_generator
from .tensor import Tensor
from .trainer_state import TrainerState

if TYPE_CHECKING:
    from .nn import Module
    from .optim import Optimizer

Data: TypeAlias = "ArrayDataset | tuple[Any, Any] | DataLoader"
SCHEDULES = ("epoch", "step")


class Trainer(TrainerState):
    """Trains a model on mini-batches; the same script runs alone and under mpirun.

    Under N ranks each takes its share of every mini-batch, so that the trajectory is that of one
    rank on the same mini-batches. A run is a function of model, data and `seed`; `state_dict`
    holds all of its state, so that a restored run continues bit for bit.

    Args:
        model: what is trained, in place.
        loss: `loss(model(x), y)` -> scalar Tensor, a mean over samples, or their sum where it
            says so in an attribute `reduction`.
        optimizer: over the model's parameters.
        scheduler: learning-rate schedule of the optimizer, stepped as `schedule` says.
        callbacks: see `thalweg.callbacks`.
        seed: of shuffling and dropout.
        comm: Communicator, default `distributed.world()`.
        schedule: "epoch" (default) or "step": when the scheduler is stepped.
        capture: whether steps of one rank are recorded and replayed, see `tw.capture`: the same
            bits in less time. A step that cannot be captured runs define-by-run, after a warning
            that says why.

    Attributes:
        step, epoch: how many of them are complete. history: the epochs' records.
        stop_requested: set by callbacks to end `fit` after the running epoch.
    """

    def __init__(
        self,
        model: Module,
        loss: Callable[[Any, Any], Tensor],
        optimizer: Optimizer,
        scheduler: Any = None,
        callbacks: Iterable[Callback] = (),
        seed: int = 0,
        comm: Communicator | None = None,
        *,
        schedule: str = "epoch",
        capture: bool = True,
    ) -> None:
        if schedule not in SCHEDULES:
            raise ValueError(f"Trainer: schedule must be one of {SCHEDULES}, got {schedule!r}")
        if not 0 <= seed < 2**64:
            raise ValueError(f"Trainer: seed must be in [0, 2**64), got {seed}")
        if schedule == "step" and isinstance(scheduler, ReduceLROnPlateau):
            raise ValueError("Trainer: ReduceLROnPlateau needs schedule='epoch', got 'step'")
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.scheduler, self.schedule, self.seed = scheduler, schedule, seed
        self.comm = world() if comm is None else comm
        self.callbacks = sorted(callbacks, key=lambda callback: callback.order)
        self.parallel = DataParallel(model, optimizer, self.comm)
        self.random = default_generator()
        self.summed = getattr(loss, "reduction", "mean") == "sum"
        self.capture = capture
        self._update, self._update_loss = self._new_update(), loss
        self.step = 0
        self.epoch = 0
        self.last_epoch = 0
        self.batches = 0
        self.history = History()
        self.stop_requested = False

    def fit(
        self,
        train: Data,
        validation: Data | None = None,
        *,
        epochs: int,
        batch_size: int = 32,
        drop_last: bool = False,
        mode: str = "samples",
    ) -> History:
        """Train for `epochs` more epochs, or until a callback stops the run.

        Args:
            train, validation: an ArrayDataset, a pair (x, y), or a DataLoader made with this
                trainer's comm, which then has its own batch_size, drop_last and mode.
            epochs: epochs to add to those already done (0 or more).
            batch_size, drop_last, mode: see DataLoader; batch_size is that of all ranks together.

        Returns: the history of all epochs, restored ones included.
        Errors: ValueError for arguments out of range, for ranks whose data or epochs differ, and
            for a mini-batch with fewer samples than ranks, before anything is trained.
        """
        if not isinstance(epochs, (int, np.integer)):
            raise TypeError(f"fit: epochs must be an integer, got {epochs!r}")
        if epochs < 0:
            raise ValueError(f"fit: epochs must not be negative, got {epochs}")
        loader = self._loader(train, batch_size, drop_last=drop_last, mode=mode, seed=self.seed)
        self._check_shares(loader, epochs)
        held_out = None if validation is None else self._held_out(validation, batch_size)
        self.batches, self.last_epoch = len(loader), self.epoch + epochs
        self.stop_requested = False
        self._notify("on_fit_start")
        while self.epoch < self.last_epoch and not self.stop_requested:
            record = self._train_epoch(loader)
            if held_out is not None:
                record |= {f"val_{name}": value for name, value in self.evaluate(held_out).items()}
            self.epoch += 1
            self.history.records.append(record)
            self._schedule("epoch", record)
            self._notify("on_epoch_end", record)
        self._notify("on_fit_end")
        return self.history

    def evaluate(self, data: Data, batch_size: int = 1000) -> Record:
        """Mean loss, and accuracy for class labels, over all samples in evaluation mode.

        Returns: {"loss": …, "accuracy": …}, the same on all ranks.
        """
        loader = self._held_out(data, batch_size)
        sums = np.zeros(3)  # loss, correct answers, samples
        was_training = self.model.training
        self.model.eval()
        try:
            with no_grad():
                for x, y in loader:
                    if len(x):
                        sums += self._measure(x, y)
        finally:
            self.model.train(was_training)
        loss, correct, samples = self.comm.allreduce(sums)
        result = {"loss": float(loss / samples)}
        if loader.dataset.classes is not None:
            result["accuracy"] = float(correct / samples)
        return result

    def _train_epoch(self, loader: DataLoader) -> Record:
        self.model.train()
        lr = float(self.optimizer.param_groups[0]["lr"])
        sums = np.zeros(2)  # loss, samples
        start = time.perf_counter()
        loader.set_epoch(self.epoch)
        for x, y in loader:
            sums += self._train_step(loader, x, y), len(x)
            self._schedule("step")
            self._notify("on_batch_end")
        loss, samples = self.comm.allreduce(sums)
        seconds = time.perf_counter() - start
        return {
            "epoch": self.epoch + 1,
            "train_loss": float(loss / samples),
            "lr": lr,
            "seconds": seconds,
            "samples_per_second": float(samples / seconds),
        }

    def _new_update(self) -> Callable[[Tensor, Array, float], Tensor]:
        """`update(x, y, share)` -> loss: one step of the optimizer."""
        model, loss_of, alone = self.parallel, self.loss, self.comm.size == 1

        def update(x: Tensor, y: Array, share: float) -> Tensor:
            loss = loss_of(model(x), y)
            model.backward(loss, share)
            model.step(zero_grad=not alone)
            if alone:  # gradients that are new arrays in each step need no zeros
                self.optimizer.zero_grad()
            return loss

        return captured(update, on_refusal="warn") if self.capture and alone else update

    def _train_step(self, loader: DataLoader, x: Array, y: Array) -> float:
        """One update; returns this rank's loss summed over its samples."""
        # Set, not advanced: another trainer may have used the generator in between.
        self.random.seed, self.random.step = self.seed, self.step
        self.random.sample_offset = loader.sample_offset
        share = 1.0 if self.summed else len(x) / loader.global_count
        if self._update_loss is not self.loss:
            self._update, self._update_loss = self._new_update(), self.loss
        loss = self._update(Tensor(x), y, share)
        self.step += 1
        return loss.item() * (1 if self.summed else len(x))

    def _measure(self, x: Array, y: Array) -> tuple[float, int, int]:
        output = self.model(Tensor(x))
        loss = self.loss(output, y).item() * (1 if self.summed else len(x))
        labels = y.ndim == 1 and y.dtype.kind in "iu"
        correct = int((output.data.argmax(axis=-1) == y).sum()) if labels else 0
        return loss, correct, len(x)

    def _schedule(self, moment: str, record: Record | None = None) -> None:
        if self.scheduler is None or moment != self.schedule:
            return
        if isinstance(self.scheduler, ReduceLROnPlateau) and record is not None:
            self.scheduler.step(record.get("val_loss", record["train_loss"]))
        else:
            self.scheduler.step()

    def _loader(self, data: Data, batch_size: int, **options: Any) -> DataLoader:
        if isinstance(data, DataLoader):
            return data
        if isinstance(data, (tuple, list)) and len(data) == 2:
            data = ArrayDataset(*data)
        if not isinstance(data, ArrayDataset):
            raise TypeError(
                "Trainer: expected an ArrayDataset, a pair (x, y) or a DataLoader, "
                f"got {type(data).__name__}"
            )
        return DataLoader(data, batch_size, comm=self.comm, **options)

    def _held_out(self, data: Data, batch_size: int) -> DataLoader:
        return self._loader(data, batch_size, shuffle=False)

    def _check_shares(self, loader: DataLoader, epochs: int) -> None:
        """Ranks that disagree on what comes would wait for each other for ever."""
        sizes = [len(index) for index in loader.sampler.batches(0)]
        plan = f"{epochs} epochs of {sum(sizes)} samples in {len(sizes)} mini-batches"
        for rank, other in enumerate(plans := self.comm.allgather(plan)):
            if other != plans[0]:
                raise ValueError(f"fit: rank 0 has {plans[0]}, rank {rank} has {other}")
        smallest = min(sizes)
        if smallest < self.comm.size:
            raise ValueError(
                f"fit: the smallest mini-batch has {smallest} samples for {self.comm.size} ranks; "
                "use drop_last=True or another batch_size"
            )

    def _notify(self, event: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            if self.comm.rank == 0 or not callback.root_only:
                getattr(callback, event)(self, *arguments)
