"""Times implementations in alternation (A B A B) in one process: both see the same noise."""

from __future__ import annotations

import importlib.metadata
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass

from case import Call, Case, Peers, Trial

ROUNDS = 20
SAMPLE_SECONDS = 2e-3  # a sample repeats short calls up to this, far above the clock's resolution
# Threads that spin after a call take a core from the next implementation: ours do so for 50 µs,
# libgomp's for milliseconds, OpenBLAS's for 30 ms. The next one starts when all have parked.
SETTLE_SECONDS = 1e-3
SETTLE_MOST = 100


@dataclass(frozen=True)
class Timing:
    """Seconds per call."""

    median_s: float
    q1_s: float
    q3_s: float

    @classmethod
    def of(cls, samples: list[float]) -> Timing:
        q1, median, q3 = statistics.quantiles(samples, n=4, method="inclusive")
        return cls(median, q1, q3)


def measure(trial: Trial, rounds: int = ROUNDS) -> dict[str, Timing]:
    """Timings by implementation; "thalweg" is ours. The answers are checked first."""
    trial.check()
    calls = {"thalweg": trial.ours, **trial.peers}
    repeats = {name: _repeats(call, trial.prepare) for name, call in calls.items()}
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            _settle()
            samples[name].append(_sample(call, trial.prepare, repeats[name]))
    return {name: Timing.of(values) for name, values in samples.items()}


def _settle() -> None:
    """Sleeps until no other thread of this process works, or SETTLE_MOST intervals have passed."""
    for _ in range(SETTLE_MOST):
        before = time.process_time()
        time.sleep(SETTLE_SECONDS)
        if time.process_time() - before < SETTLE_SECONDS / 4:
            return


def _repeats(call: Call, prepare: Call | None) -> int:
    if prepare:
        return 1
    call()
    once = min(_sample(call, None, 1) for _ in range(3))
    return max(1, round(SAMPLE_SECONDS / once))


def _sample(call: Call, prepare: Call | None, repeats: int) -> float:
    if prepare:
        prepare()
    elif repeats > 1:
        call()  # wakes the threads and fills the caches again after the other implementation
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


@dataclass(frozen=True)
class Run:
    """What the command line asked for, and what there is to compare with."""

    quick: bool
    rounds: int
    only: str
    peers: Peers
    limits: Mapping[str, float]


@dataclass(frozen=True)
class Record:
    """`ratio` is this implementation's time over ours: above 1 we are faster, below 1 slower.

    `limit_fraction` is the time that the machine's measured limits allow over the time taken.
    """

    suite: str
    case: str
    impl: str
    version: str
    median_s: float
    q1_s: float
    q3_s: float
    ratio: float
    limit_fraction: float | None


def our_version() -> str:
    try:
        return importlib.metadata.version("thalweg")
    except importlib.metadata.PackageNotFoundError:
        return "in place"  # built beside its sources; the header has the commit


def compare(suite: str, cases: Iterable[Case], run: Run) -> Iterator[Record]:
    """Records of each case: ours first, then its peers."""
    for case in cases:
        if run.only not in case.name:
            continue
        trial = case.make(run.peers.modules)
        timings = measure(trial, run.rounds)
        limit = trial.work.limit_seconds(run.limits)
        for impl, timing in timings.items():
            yield Record(
                suite,
                case.name,
                impl,
                our_version() if impl == "thalweg" else run.peers.version(impl),
                **asdict(timing),
                ratio=timing.median_s / timings["thalweg"].median_s,
                limit_fraction=None if limit is None else limit / timing.median_s,
            )
