"""The part of a trainer that is saved and restored."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .callbacks import Callback, load_newest
from .history import History
from .serialization import load

if TYPE_CHECKING:
    from .distributed import Communicator
    from .nn import Module
    from .optim import Optimizer
    from .random import Generator


class TrainerState:
    """Everything that the rest of a run depends on, as a tree, and back."""

    model: Module
    optimizer: Optimizer
    scheduler: Any
    random: Generator
    seed: int
    step: int
    epoch: int
    history: History
    callbacks: list[Callback]
    comm: Communicator

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on, as a tree for `tw.save`."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "random": self.random.state_dict(),
            "seed": self.seed,
            "step": self.step,
            "epoch": self.epoch,
            "history": self.history.records,
            "callbacks": {name: c.state_dict() for name, c in self._named_callbacks()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken, with a trainer that was made the same way.

        Errors: ValueError for something else than a trainer's state, and what the parts raise
        where theirs does not fit; the trainer is then as before.
        """
        before = copy.deepcopy(self.state_dict())
        if missing := before.keys() - state.keys():
            raise ValueError(
                f"Trainer: expected a trainer's state, found {', '.join(state)} "
                f"without {', '.join(sorted(missing))}"
            )
        if (self.scheduler is None) != (state["scheduler"] is None):
            theirs, ours = ("without", "with")[:: 1 if self.scheduler else -1]
            raise ValueError(
                f"Trainer: the state was taken {theirs} a scheduler, this trainer is {ours} one"
            )
        try:
            self._take_over(state)
        except Exception:
            self._take_over(before)
            raise

    def _take_over(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        self.random.load_state_dict(state["random"])
        self.seed, self.step, self.epoch = state["seed"], state["step"], state["epoch"]
        self.history = History(state["history"])
        for name, callback in self._named_callbacks():
            if name in state["callbacks"]:
                callback.load_state_dict(state["callbacks"][name])

    def restore(self, path: str | os.PathLike[str]) -> None:
        """Continue from a checkpoint file, or from the newest whole one of a directory.

        Only rank 0 reads. Errors: CheckpointError; a damaged newer checkpoint is a warning.
        """
        state = None
        if self.comm.rank == 0:
            path = Path(path)
            state = load(path) if path.suffix == ".safetensors" else load_newest(path)
        self.load_state_dict(self.comm.broadcast_object(state))

    def _named_callbacks(self) -> list[tuple[str, Callback]]:
        """Callbacks under names that do not depend on callbacks of other types."""
        count: dict[str, int] = {}
        named = []
        for callback in self.callbacks:
            kind = type(callback).__name__
            count[kind] = count.get(kind, 0) + 1
            named.append((f"{kind}-{count[kind]}", callback))
        return named
