"""data_parallel.py FILE: trains every case on this job's ranks, and leaves losses and weights.

What the ranks have to agree on is asserted here; what must not depend on their number is compared
by test_data_parallel.py.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import thalweg as tw
from thalweg import nn
from thalweg.distributed import DataParallel, share, world

FEATURES, CLASSES = 12, 5


@dataclass(frozen=True)
class Training:
    """`batches` are the sizes of the global mini-batches of an epoch, whatever the ranks."""

    model: Callable[[], nn.Module]
    optimizer: Callable[..., tw.optim.Optimizer]
    batches: tuple[int, ...]
    epochs: int = 3
    bucket_bytes: int = 1 << 20
    micro_steps: int = 1  # backward passes per step


def normalised():
    """No bias before BatchNorm: its gradient is zero, and Adam makes steps of the rounding."""
    return nn.Sequential(
        nn.Linear(FEATURES, 32, bias=False),
        nn.BatchNorm1d(32),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(32, 16, bias=False),
        nn.BatchNorm1d(16),
        nn.Sigmoid(),
        nn.Linear(16, CLASSES),
    )


def plain():
    return nn.Sequential(
        nn.Linear(FEATURES, 24), nn.Tanh(), nn.Dropout(0.5), nn.Linear(24, CLASSES)
    )


class Branches(nn.Module):
    """Samples with a positive first feature, few and all on one rank, go through `rare` too."""

    def __init__(self):
        super().__init__()
        self.common = nn.Linear(FEATURES, CLASSES)
        self.rare = nn.Linear(FEATURES, CLASSES)
        self.never = nn.Linear(FEATURES, CLASSES)

    def forward(self, x):
        chosen = np.flatnonzero(x.data[:, 0] > 0)
        logits = self.common(x)
        if len(chosen):
            select = np.eye(len(x.data), dtype=x.dtype)[:, chosen]
            logits = logits + tw.matmul(select, self.rare(x[chosen]))
        return logits


CASES = {
    # no size is a multiple of 2 and 3 ranks; the last batch leaves one of 3 ranks without samples
    "batch norm and dropout": Training(
        normalised, lambda p: tw.optim.Adam(p, lr=1e-2), (32, 31, 17, 2), bucket_bytes=512
    ),
    "one sample in the last batch": Training(
        plain, lambda p: tw.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-3), (8, 7, 1)
    ),
    "clipped by the global norm": Training(
        plain, lambda p: tw.optim.AdamW(p, lr=1e-2, max_norm=0.1), (16, 9), bucket_bytes=1
    ),
    "parameters that some ranks do not use": Training(
        Branches, lambda p: tw.optim.Adam(p, lr=1e-2, weight_decay=0.1), (12, 12, 5)
    ),
    "accumulated": Training(
        plain, lambda p: tw.optim.RMSprop(p, lr=1e-3), (16, 16), micro_steps=2, bucket_bytes=256
    ),
}


def samples(sizes):
    rng = np.random.default_rng(1)
    count = sum(sizes)
    x = rng.standard_normal((count, FEATURES)).astype(np.float32)
    starts = np.cumsum([0, *sizes[:-1]])
    x[:, 0] = -np.abs(x[:, 0])
    x[starts, 0] = 1.0  # the first sample of each batch, hence rank 0's unless its share is empty
    return x, rng.integers(0, CLASSES, count)


def train(case: Training, comm) -> tuple[list[float], nn.Module]:
    tw.random.manual_seed(comm.rank)  # ranks start differently; rank 0's model is everyone's
    model = case.model()
    optimizer = case.optimizer(model.parameters())
    dp = DataParallel(model, optimizer, comm, bucket_bytes=case.bucket_bytes)
    criterion = nn.CrossEntropyLoss()
    x, y = samples(case.batches)
    generator = tw.random.default_generator()
    losses = []
    for _ in range(case.epochs):
        start = 0
        for count in case.batches:
            loss = 0.0
            for micro in range(case.micro_steps):
                part = share(count, micro, case.micro_steps)
                mine = share(part.stop - part.start, comm.rank, comm.size)
                first, last = (start + part.start + i for i in (mine.start, mine.stop))
                weight = (last - first) / count
                generator.sample_offset = part.start + mine.start
                value = criterion(dp(tw.tensor(x[first:last])), y[first:last])
                dp.backward(value, weight, sync=micro == case.micro_steps - 1)
                loss += dp.mean(value.item(), weight)
            dp.step()
            optimizer.zero_grad()
            generator.advance()
            losses.append(loss)
            start += count
    return losses, model


def assert_same_bits(model, comm):
    digest = hashlib.sha256()
    for array in model.state_dict().values():
        digest.update(array.tobytes())
    assert len(set(comm.allgather(digest.digest()))) == 1, "ranks differ in the model's bits"


if __name__ == "__main__":
    comm = world()
    results = {}
    for name, case in CASES.items():
        losses, model = train(case, comm)
        assert_same_bits(model, comm)
        results[f"{name}/losses"] = np.array(losses)
        for key, value in model.state_dict().items():
            results[f"{name}/{key}"] = value
    if comm.rank == 0:
        np.savez(sys.argv[1], **results)
