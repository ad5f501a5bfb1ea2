"""pipeline.py FILE: trains every case as a pipeline on this job's ranks, and leaves losses,
outputs and weights."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import thalweg as tw
from thalweg import nn
from thalweg.distributed import Pipeline, world

FEATURES, CLASSES = 12, 5


@dataclass(frozen=True)
class Training:
    stages: Callable[[], list[nn.Module]]
    optimizer: Callable[..., tw.optim.Optimizer]
    batches: tuple[int, ...]
    micro_batches: int = 4
    epochs: int = 3


def three():
    return [
        nn.Sequential(nn.Linear(FEATURES, 24), nn.ReLU(), nn.Dropout(0.25)),
        nn.Sequential(nn.Linear(24, 16), nn.Tanh()),
        nn.Linear(16, CLASSES),
    ]


def normalised():
    return [
        nn.Sequential(nn.Linear(FEATURES, 24), nn.BatchNorm1d(24), nn.ReLU()),
        nn.Sequential(nn.Linear(24, 16), nn.BatchNorm1d(16)),
        nn.Sigmoid(),
        nn.Linear(16, 16),
        nn.Linear(16, CLASSES),
    ]


def without_parameters_first():
    return [nn.Tanh(), nn.Linear(FEATURES, 16), nn.ReLU(), nn.Linear(16, CLASSES)]


# stages that keep samples apart give the losses of the whole mini-batch, too
CASES = {
    "three stages": Training(
        three, lambda p: tw.optim.SGD(p, lr=0.1, momentum=0.9), (24, 23, 7, 2)
    ),
    "batch norm, more stages than ranks": Training(
        normalised, lambda p: tw.optim.Adam(p, lr=1e-2), (24, 20, 11)
    ),
    "nothing to learn in the first stage": Training(
        without_parameters_first, lambda p: tw.optim.Adam(p, lr=1e-2), (9, 1), micro_batches=3
    ),
    "clipped by the norm over all ranks": Training(
        three, lambda p: tw.optim.AdamW(p, lr=1e-2, max_norm=0.05), (16, 9)
    ),
    "whole batches": Training(three, lambda p: tw.optim.AdamW(p), (16, 9), micro_batches=1),
}


def samples(count):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((count, FEATURES)).astype(np.float32)
    return x, rng.integers(0, CLASSES, count)


def train(case: Training, comm) -> tuple[list[float], Pipeline]:
    tw.random.manual_seed(comm.rank)  # ranks start differently; rank 0's stages are everyone's
    pipe = Pipeline(case.stages(), comm=comm, micro_batches=case.micro_batches)
    parameters = list(pipe.parameters())
    optimizer = case.optimizer(parameters) if parameters else None
    criterion = nn.CrossEntropyLoss()
    x, y = samples(sum(case.batches))
    first, last = comm.rank == 0, comm.rank == comm.size - 1
    losses = []
    for _ in range(case.epochs):
        stop = 0
        for count in case.batches:
            start, stop = stop, stop + count
            inputs, targets = x[start:stop] if first else None, y[start:stop] if last else None
            losses.append(pipe.train_step(inputs, targets, criterion, optimizer))
    return losses, pipe


if __name__ == "__main__":
    comm = world()
    results = {}
    for name, case in CASES.items():
        losses, pipe = train(case, comm)
        assert comm.allgather(losses) == [losses] * comm.size
        results[f"{name}/losses"] = np.array(losses)
        x, _ = samples(10)
        results[f"{name}/outputs"] = pipe.eval()(x if comm.rank == 0 else None).data
        state = pipe.state_dict()
        whole = nn.Sequential(*case.stages())
        whole.load_state_dict(state)
        pipe.load_state_dict(state)
        for key, value in state.items():
            results[f"{name}/{key}"] = value
    if comm.rank == 0:
        np.savez(sys.argv[1], **results)
