"""What a benchmark case is: one piece of work, by us and by peers, with its answer and cost."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

Call = Callable[[], object]

PEERS = {"torch": "torch", "numpy": "numpy", "jax": "jax", "sklearn": "sklearn"}


@dataclass(frozen=True)
class Work:
    """Operations and bytes that any implementation has to spend, hence a time no one can beat.

    The limit is the larger of `flops` at the machine's FMA rate and `bytes` at its triad
    bandwidth, both measured in the same run (`_core.measure_limits`). Where the `footprint`, all
    memory that one call visits, fits into the last-level cache, the bandwidth does not count.
    """

    flops: float = 0.0
    bytes: float = 0.0
    footprint: float = 0.0
    rate: str = "fma_f32_gflops"

    def limit_seconds(self, limits: Mapping[str, float]) -> float | None:
        seconds = self.flops / (limits[self.rate] * 1e9)
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
class Trial:
    """A case made ready: inputs allocated, every call warm and idempotent enough to be repeated.

    `check` asserts that all implementations give the same answer; it runs before any timing.
    `prepare` restores what a call uses up (gradients that it zeroes), untimed, before each call.
    """

    ours: Call
    peers: dict[str, Call]
    check: Callable[[], None]
    work: Work
    prepare: Call | None = None


@dataclass(frozen=True)
class Case:
    """`make(peers)` builds the trial from the peer modules that are there."""

    name: str
    make: Callable[[Mapping[str, ModuleType]], Trial]


@dataclass
class Peers:
    """The libraries to compare with: those that import, and why the others do not."""

    modules: dict[str, ModuleType] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, names: Iterable[str], threads: int) -> Peers:
        peers = cls()
        for name in names:
            if name not in PEERS:
                raise SystemExit(f"--vs: unknown peer {name!r}, have {', '.join(PEERS)}")
            try:
                peers.modules[name] = importlib.import_module(PEERS[name])
            except ImportError as error:
                peers.absent[name] = str(error)
        if "torch" in peers.modules:
            peers.modules["torch"].set_num_threads(threads)
        return peers

    def version(self, impl: str) -> str:
        name = impl.split()[0]  # "torch fused" is torch
        return str(self.modules[name].__version__)
