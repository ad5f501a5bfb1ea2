"""One source of randomness: a seed, a step counter, and NumPy's Philox for initial values."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from . import _core
from .recording import active, refuse


class Generator:
    """What random numbers are a function of.

    Initial values are drawn in sequence from `numpy`. Dropout draws by position instead, from
    (seed, step, module, sample in the global batch, element), so that a mask does not depend on
    the number of ranks; whoever runs the training loop calls `advance()` once per step and sets
    `sample_offset` to the position of this rank's first sample in the global batch.
    """

    def __init__(self, seed: int = 0) -> None:
        self.memory = np.zeros(3, np.int64)  # seed (its bits), step, sample_offset
        self.manual_seed(seed)

    @property
    def seed(self) -> int:
        return int(self.memory.view(np.uint64)[0])

    @seed.setter
    def seed(self, seed: int) -> None:
        self.memory.view(np.uint64)[0] = seed

    @property
    def step(self) -> int:
        return int(self.memory[1])

    @step.setter
    def step(self, step: int) -> None:
        self.memory[1] = step

    @property
    def sample_offset(self) -> int:
        return int(self.memory[2])

    @sample_offset.setter
    def sample_offset(self, offset: int) -> None:
        self.memory[2] = offset

    def snapshot(self) -> npt.NDArray[np.int64]:
        """Seed, step and sample offset as of now, for `functional.dropout`."""
        if (recorder := active()) is not None:
            recorder.state(self.memory)
        return _core.snapshot(self.memory)

    def manual_seed(self, seed: int) -> Generator:
        """Start again from `seed`, an integer in [0, 2**64)."""
        if not isinstance(seed, (int, np.integer)):
            raise TypeError(f"manual_seed: seed must be an integer, got {seed!r}")
        if not 0 <= seed < 2**64:
            raise ValueError(f"manual_seed: seed must be in [0, 2**64), got {seed}")
        self.seed = int(seed)
        self.step = 0
        self.sample_offset = 0
        self._numpy: np.random.Generator | None = None
        return self

    @property
    def numpy(self) -> np.random.Generator:
        """The sequential generator; made at first use, since numpy.random is slow to import."""
        refuse(
            "random numbers are drawn by NumPy", "draw them outside and pass them as an argument"
        )
        if self._numpy is None:
            self._numpy = np.random.Generator(np.random.Philox(self.seed))
        return self._numpy

    def advance(self) -> None:
        """Count one training step."""
        _core.advance(self.memory[1:2])

    def state_dict(self) -> dict[str, Any]:
        """Everything that later draws depend on: integers, strings and NumPy arrays."""
        return {
            "seed": self.seed,
            "step": self.step,
            "sample_offset": self.sample_offset,
            "numpy": self.numpy.bit_generator.state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        numpy = np.random.Generator(np.random.Philox(state["seed"]))
        numpy.bit_generator.state = state["numpy"]
        self.seed = int(state["seed"])
        self.step = int(state["step"])
        self.sample_offset = int(state["sample_offset"])
        self._numpy = numpy


_default = Generator()


def default_generator() -> Generator:
    """The generator that is used where none is given."""
    return _default


def manual_seed(seed: int) -> Generator:
    """Seed the default generator and return it."""
    return _default.manual_seed(seed)
