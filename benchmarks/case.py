"""What a benchmark case is: one piece of work, by us and by peers, with its answer and cost."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Call = Callable[[], object]


@dataclass(frozen=True)
class Work:
    """Operations and bytes that any implementation has to spend, hence a time no one can beat.

    The limit is the larger of `flops` at the machine's rate and `bytes` at its triad bandwidth,
    both measured in the same run (`_core.measure_limits`). Where the `footprint`, all memory that
    one call visits, fits into the last-level cache, the bandwidth does not count.
    """

    flops: float = 0.0
    bytes: float = 0.0
    footprint: float = 0.0
    rate: str = "fma_f32_gflops"

    def limit_seconds(self, limits: Mapping[str, float]) -> float | None:
        seconds = self.flops / (limits[self.rate] * 1e9) if self.rate in limits else 0.0
        if not self.in_cache():
            seconds = max(seconds, self.bytes / (limits["triad_gbytes"] * 1e9))
        return seconds or None

    def in_cache(self) -> bool:
        return self.footprint < last_level_cache_bytes()


@functools.cache
def last_level_cache_bytes() -> int:
    """Of the first core, as Linux reports it; 32 MiB where it does not."""
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    caches = sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"))
    if not caches:
        return 32 << 20
    size = caches[-1].read_text().strip()
    return int(size[:-1]) * units[size[-1]]


@dataclass(frozen=True)
class Side:
    """One implementation made ready: inputs allocated, the call fit to be repeated.

    `answer` copies what the last call gave. `prepare` restores, untimed, what a call uses up.
    """

    call: Call
    answer: Callable[[], list[Array]]
    prepare: Call | None = None


@dataclass(frozen=True)
class Case:
    """`sides` make the implementations; the first is ours, the first word of a name its library.

    Each side is made and run in a process of its library. Before anything is timed, its answer has
    to be within `tolerance` of the `reference` in float64, else of ours: largest deviation over
    largest magnitude, array by array. `units` pieces of work are done by one call.
    """

    name: str
    sides: Mapping[str, Callable[[], Side]]
    tolerance: float
    work: Work = field(default_factory=Work)
    reference: Callable[[], list[Array]] | None = None
    units: int = 1


def deviation(answer: list[Array], reference: list[Array]) -> float:
    """Of the worst array; infinite where shapes differ or something is not a number."""
    worst = 0.0
    for got, wanted in zip(answer, reference, strict=True):
        if got.shape != wanted.shape:
            return float("inf")
        scale = float(np.max(np.abs(wanted), initial=0.0)) or 1.0
        error = float(np.max(np.abs(got.astype(np.float64) - wanted), initial=0.0)) / scale
        worst = max(worst, float("inf") if np.isnan(error) else error)
    return worst
