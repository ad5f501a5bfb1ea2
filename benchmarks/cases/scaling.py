"""Weak scaling of data parallel training: every rank has the same work however many there are.

    mpirun -n 2 python benchmarks/run.py scaling

In alternation rank 0 trains alone on its share while the others sleep, then all train together.
Efficiency, one rank's time over the time of all, is the median's ratio; 1 is perfect. One thread
a rank, unless --threads says otherwise.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

import thalweg as tw
from measure import Record, Run, Timing
from thalweg import nn
from thalweg.distributed import Communicator, DataParallel, LocalComm, world

SAMPLE_SECONDS = 0.05
POLL_SECONDS = 1e-3


@dataclass(frozen=True)
class Network:
    widths: tuple[int, ...]
    samples: int  # a rank

    @property
    def name(self) -> str:
        return f"{'-'.join(map(str, self.widths))} x{self.samples}"

    def build(self) -> nn.Module:
        layers: list[nn.Module] = []
        for fan_in, fan_out in zip(self.widths[:-2], self.widths[1:-1], strict=True):
            layers += [nn.Linear(fan_in, fan_out), nn.BatchNorm1d(fan_out), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(*self.widths[-2:]))


NETWORKS = [
    Network((784, 100, 100, 100, 10), 60),
    Network((3072, 100, 10), 64),
    Network((784, 1024, 1024, 1024, 10), 256),
]


def records(run: Run) -> Iterator[Record]:
    comm = world()
    if comm.size == 1:
        raise SystemExit("scaling: start it as mpirun -n 2 python benchmarks/run.py scaling")
    for network in NETWORKS[: 1 if run.quick else None]:
        if run.only in network.name:
            yield from _compare(network, comm, run.rounds)


def _compare(network: Network, comm: Communicator, rounds: int) -> Iterator[Record]:
    alone, together = _trainer(network, LocalComm()), _trainer(network, comm)
    repeats = _agree_on_repeats(alone, comm)
    _check_same_bits(together.model, comm)
    samples: dict[str, list[float]] = {"1 rank": [], f"{comm.size} ranks": []}
    for _ in range(rounds):
        if comm.rank == 0:
            samples["1 rank"].append(_seconds(alone.step, repeats))
        _wait_asleep(comm)
        comm.barrier()
        samples[f"{comm.size} ranks"].append(_seconds(together.step, repeats))
    _check_same_bits(together.model, comm)
    if comm.rank == 0:
        timings = {name: Timing.of(values) for name, values in samples.items()}
        for name, timing in timings.items():
            yield Record(
                suite="scaling",
                case=network.name,
                impl="thalweg" if name == "1 rank" else f"thalweg {name}",
                version=tw.__version__,
                median_s=timing.median_s,
                q1_s=timing.q1_s,
                q3_s=timing.q3_s,
                ratio=timings["1 rank"].median_s / timing.median_s,
                limit_fraction=None,
            )


@dataclass
class _Trainer:
    model: nn.Module
    step: Callable[[], object]


def _trainer(network: Network, comm: Communicator) -> _Trainer:
    tw.random.manual_seed(0)
    model = network.build()
    parallel = DataParallel(model, tw.optim.Adam(model.parameters()), comm)
    criterion = nn.CrossEntropyLoss()
    rng = np.random.default_rng(comm.rank)
    x = tw.tensor(rng.standard_normal((network.samples, network.widths[0]), np.float32))
    y = rng.integers(0, network.widths[-1], network.samples)

    def step() -> None:
        parallel.backward(criterion(parallel(x), y), 1 / comm.size)
        parallel.step(zero_grad=True)

    return _Trainer(model, step)


def _agree_on_repeats(alone: _Trainer, comm: Communicator) -> int:
    repeats = 1
    if comm.rank == 0:
        alone.step()
        repeats = max(1, round(SAMPLE_SECONDS / _seconds(alone.step, 3)))
    _wait_asleep(comm)
    agreed: int = comm.broadcast_object(repeats)
    return agreed


def _seconds(step: Callable[[], object], repeats: int) -> float:
    step()
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    return (time.perf_counter() - start) / repeats


def _wait_asleep(comm: Communicator) -> None:
    """A barrier whose waiting ranks leave their core, and its power, to the one that works."""
    request = comm.iallreduce(np.zeros(1))
    while not request.test():
        time.sleep(POLL_SECONDS)


def _check_same_bits(model: nn.Module, comm: Communicator) -> None:
    bits = [parameter.data.tobytes() for parameter in model.parameters()]
    assert len(set(comm.allgather(hashlib.sha256(b"".join(bits)).digest()))) == 1, (
        "ranks train different models"
    )
