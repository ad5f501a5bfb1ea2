"""Which samples make up which mini-batch of an epoch.

A sampler knows neither ranks nor arrays: the mini-batches of an epoch are a function of its seed
and the epoch, so that every number of ranks trains on the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

from ..backend import Array


class Sampler(Protocol):
    """Mini-batches of an epoch, as index arrays into the data set."""

    def __len__(self) -> int:
        """Mini-batches per epoch."""

    def batches(self, epoch: int) -> Iterator[Array]:
        """The index array of each mini-batch of `epoch`, in order."""


class _Blocks:
    """`samples` cut into runs of `batch_size`, the last one shorter or dropped."""

    def __init__(self, samples: int, batch_size: int, seed: int, drop_last: bool) -> None:
        self.samples, self.batch_size, self.seed = samples, batch_size, seed
        self.count = samples // batch_size if drop_last else -(-samples // batch_size)

    def __len__(self) -> int:
        return self.count

    def block(self, k: int) -> slice:
        return slice(k * self.batch_size, min((k + 1) * self.batch_size, self.samples))

    def permutation(self, n: int, epoch: int) -> Array:
        generator = np.random.Generator(
            np.random.Philox(np.random.SeedSequence((self.seed, epoch)))
        )
        return generator.permutation(n)


class InOrder(_Blocks):
    """The samples as they lie, for evaluation."""

    def batches(self, epoch: int) -> Iterator[Array]:
        index = np.arange(self.samples)
        return (index[self.block(k)] for k in range(self.count))


class PermutedSamples(_Blocks):
    """Drawn without replacement: each epoch cuts a new permutation of the samples."""

    def batches(self, epoch: int) -> Iterator[Array]:
        index = self.permutation(self.samples, epoch)
        return (index[self.block(k)] for k in range(self.count))


class PermutedBatches(_Blocks):
    """Fixed mini-batches of neighbouring samples, whose order is permuted each epoch."""

    def batches(self, epoch: int) -> Iterator[Array]:
        index = np.arange(self.samples)
        return (index[self.block(k)] for k in self.permutation(self.count, epoch))


SAMPLERS: dict[str, Callable[[int, int, int, bool], Sampler]] = {
    "samples": PermutedSamples,
    "batches": PermutedBatches,
}
