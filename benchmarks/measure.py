"""Checks the answers of a case's sides, then times them in alternation (A B A B)."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Protocol

from case import Array, Case, deviation

ROUNDS = 20
SAMPLE_SECONDS = 4e-3  # a sample repeats short calls up to this, far above the clock's resolution
SIDE_SECONDS = 2.5  # calls that would take longer than this in all get fewer rounds …
FEWEST_ROUNDS = 7  # … but not fewer than these


@dataclass(frozen=True)
class Timing:
    """Seconds per unit of work."""

    median_s: float
    q1_s: float
    q3_s: float

    @classmethod
    def of(cls, samples: list[float]) -> Timing:
        q1, median, q3 = statistics.quantiles(samples, n=4, method="inclusive")
        return cls(median, q1, q3)


@dataclass(frozen=True)
class Record:
    """`ratio` is this implementation's time over ours: above 1 we are faster, below 1 slower.

    `limit_fraction` is the time that the machine's measured limits allow over the time taken.
    `detail` holds what else is known: "gflops", "error" against float64, "mebibytes".
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
    detail: Mapping[str, float] = field(default_factory=dict)


class Runner(Protocol):
    """A `contestant.Contestant`."""

    version: str

    def make(self, case: str, impl: str) -> list[Array]: ...
    def sample(self, impl: str, repeats: int) -> float: ...
    def forget(self) -> None: ...


@dataclass(frozen=True)
class Run:
    """What the command line asked for, and who takes part; `absent` says who does not, and why."""

    quick: bool
    rounds: int
    only: str
    contestants: Mapping[str, Runner]
    limits: Mapping[str, float]
    absent: dict[str, str]


def compare(suite: str, cases: Iterable[Case], run: Run) -> Iterator[Record]:
    """Records of each case: ours first, then its peers. A side that cannot run is left out with a
    line in `run.absent`; one with a wrong answer ends the run."""
    for case in cases:
        if run.only not in case.name:
            continue
        errors = check(case, run)
        if not any(library(impl) == "thalweg" for impl in errors):
            continue
        ours_first = sorted(errors, key=lambda impl: library(impl) != "thalweg")
        timings = measure(case, ours_first, run)
        ours = next(iter(timings))
        limit = case.work.limit_seconds(run.limits)
        for impl, timing in timings.items():
            yield Record(
                suite,
                case.name,
                impl,
                run.contestants[library(impl)].version,
                **asdict(timing),
                ratio=timing.median_s / timings[ours].median_s,
                limit_fraction=None if limit is None else limit / case.units / timing.median_s,
                detail=_detail(case, timing, errors[impl]),
            )
        for contestant in run.contestants.values():
            contestant.forget()


def library(impl: str) -> str:
    """ "torch fused" is torch."""
    return impl.split()[0]


def check(case: Case, run: Run) -> dict[str, float]:
    """Deviations of all sides that can run; AssertionError for a wrong answer."""
    expected = case.reference() if case.reference else None
    errors: dict[str, float] = {}
    for impl in case.sides:
        if library(impl) not in run.contestants:
            continue
        try:
            answer = run.contestants[library(impl)].make(case.name, impl)
        except RuntimeError as error:
            run.absent[f"{case.name}, {impl}"] = str(error)
            continue
        expected = expected or answer
        errors[impl] = deviation(answer, expected)
        assert errors[impl] <= case.tolerance, (
            f"{impl}: {case.name} is off by {errors[impl]:.1e}, allowed {case.tolerance:.1e}"
        )
    return errors


def measure(case: Case, impls: Iterable[str], run: Run) -> dict[str, Timing]:
    once = {impl: _typical(run, impl) for impl in impls}
    repeats = {impl: max(1, round(SAMPLE_SECONDS / seconds)) for impl, seconds in once.items()}
    rounds = max(FEWEST_ROUNDS, min(run.rounds, round(SIDE_SECONDS / max(once.values()))))
    samples: dict[str, list[float]] = {impl: [] for impl in once}
    for _ in range(rounds):
        for impl, values in samples.items():
            seconds = run.contestants[library(impl)].sample(impl, repeats[impl])
            values.append(seconds / case.units)
    return {impl: Timing.of(values) for impl, values in samples.items()}


def _typical(run: Run, impl: str) -> float:
    """Seconds of one call; short ones are tried again, for the first calls are slow."""
    contestant = run.contestants[library(impl)]
    seconds = contestant.sample(impl, 1)
    for repeats in (2, 4):
        if seconds < 10 * SAMPLE_SECONDS:
            seconds = contestant.sample(impl, repeats)
    return seconds


def _detail(case: Case, timing: Timing, error: float) -> dict[str, float]:
    detail = {}
    if case.work.flops:
        detail["gflops"] = case.work.flops / case.units / timing.median_s / 1e9
    if case.reference:
        detail["error"] = error
    return detail
