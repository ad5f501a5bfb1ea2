"""DataLoader: this rank's share of each global mini-batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from ..backend import Array
from .arrays import ArrayDataset
from .samplers import SAMPLERS, InOrder


class Ranked(Protocol):
    """What a loader asks of a Communicator."""

    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...


def share(samples: int, rank: int, size: int) -> slice:
    """The samples of a global mini-batch that rank `rank` of `size` takes; none for some if few.

    >>> [share(10, r, 3) for r in range(3)]
    [slice(0, 3, None), slice(3, 6, None), slice(6, 10, None)]
    """
    return slice(samples * rank // size, samples * (rank + 1) // size)


class DataLoader:
    """Iterates over mini-batches as (x, y) arrays; under MPI over this rank's share of each.

    A global mini-batch is cut into contiguous shares (see `share`), so every number of ranks sees
    the same mini-batches.
    Each pass is an epoch of its own; `set_epoch` goes to one.

    Args:
        dataset: what is iterated over.
        batch_size: samples of a global mini-batch, at least 1.
        shuffle: permute per epoch; False iterates in order.
        seed: of the permutations, not negative.
        drop_last: leave out a last mini-batch that is not full.
        comm: Communicator whose rank and size say which share is ours; None is the whole.
        mode: "samples" permutes the samples, "batches" permutes fixed mini-batches of
            neighbouring samples, which reads memory in order.

    Attributes:
        global_count: samples of the running mini-batch on all ranks.
        sample_offset: where this rank's share starts in it.

    Errors: ValueError for arguments out of range, and for drop_last with fewer samples than
        one mini-batch.

    >>> data = ArrayDataset([[0.0], [1.0], [2.0]], [0, 1, 1])
    >>> [len(x) for x, y in DataLoader(data, 2)]
    [2, 1]
    """

    def __init__(
        self,
        dataset: ArrayDataset,
        batch_size: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        comm: Ranked | None = None,
        mode: str = "samples",
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"DataLoader: batch_size must be at least 1, got {batch_size}")
        if seed < 0:
            raise ValueError(f"DataLoader: seed must not be negative, got {seed}")
        if mode not in SAMPLERS:
            raise ValueError(f"DataLoader: mode must be one of {sorted(SAMPLERS)}, got {mode!r}")
        if drop_last and len(dataset) < batch_size:
            raise ValueError(
                f"DataLoader: drop_last leaves nothing of {len(dataset)} samples with "
                f"batch_size {batch_size}"
            )
        self.dataset = dataset
        self.rank, self.size = (comm.rank, comm.size) if comm is not None else (0, 1)
        sampler = SAMPLERS[mode] if shuffle else InOrder
        self.sampler = sampler(len(dataset), batch_size, seed, drop_last)
        self.epoch = 0
        self.global_count = 0
        self.sample_offset = 0

    def __len__(self) -> int:
        return len(self.sampler)

    def set_epoch(self, epoch: int) -> None:
        """Make the next pass that of `epoch`, counted from 0."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        for index in self.sampler.batches(epoch):
            self.global_count = len(index)
            mine = share(len(index), self.rank, self.size)
            self.sample_offset = mine.start
            yield self.dataset[index[mine]]
