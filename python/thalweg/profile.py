"""`profile`: what each operation cost, and how far that is from what the machine can do."""

from __future__ import annotations

import functools
import json
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from . import _core


class Event(NamedTuple):
    """One launch. start: seconds since the profile was made."""

    name: str
    flops: float
    bytes: float
    start: float
    seconds: float


class Row(NamedTuple):
    """All launches of one operation. limit: the time they would take at the machine's measured
    limits of arithmetic and memory, whichever is longer, over the time they took."""

    name: str
    calls: int
    seconds: float
    gflops: float
    gbytes: float
    limit: float


class Profile:
    """A `with` block whose operations on this thread are timed, those of replayed steps too.

    >>> import numpy as np
    >>> import thalweg as tw
    >>> with tw.profile() as p:
    ...     _ = tw.matmul(np.ones((2, 3)), np.ones((3, 4)))
    >>> [(event.name, event.flops) for event in p.events]
    [('matmul', 48.0)]
    """

    def __init__(self) -> None:
        self._native = _core.Profile()

    def __enter__(self) -> Profile:
        self._native.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._native.stop()

    @property
    def events(self) -> list[Event]:
        """The launches, in order."""
        return [Event(*event) for event in self._native.events()]

    def rows(self) -> list[Row]:
        """One row an operation, the longest first."""
        names: dict[str, list[Event]] = {}
        for event in self.events:
            names.setdefault(event.name, []).append(event)
        rows = [_row(name, events) for name, events in names.items()]
        return sorted(rows, key=lambda row: -row.seconds)

    def table(self) -> str:
        """`rows()` as text, with the share of the whole time."""
        rows = self.rows()
        whole = sum(row.seconds for row in rows) or 1.0
        lines = [f"{'operation':<26}{'calls':>7}{'ms':>11}{'%':>7}{'GFLOP/s':>10}{'GB/s':>9}"]
        lines[0] += f"{'of limit':>10}"
        for row in rows:
            share = f"{row.name:<26}{row.calls:>7}{row.seconds * 1e3:>11.3f}"
            rates = f"{row.gflops:>10.2f}{row.gbytes:>9.2f}{row.limit:>10.1%}"
            lines.append(f"{share}{row.seconds / whole:>7.1%}{rates}")
        return "\n".join(lines)

    def chrome_trace(self, path: str | os.PathLike[str]) -> None:
        """Write the launches as a trace for chrome://tracing or Perfetto."""
        events = [
            {
                "name": event.name,
                "ph": "X",
                "ts": event.start * 1e6,
                "dur": event.seconds * 1e6,
                "pid": os.getpid(),
                "tid": threading.get_native_id(),
                "args": {"flops": event.flops, "bytes": event.bytes},
            }
            for event in self.events
        ]
        Path(path).write_text(json.dumps({"traceEvents": events}))


@functools.cache
def _limits(threads: int, isa: str) -> tuple[float, float]:
    """Floating-point operations and bytes a second, as measured with these threads and ISA."""
    limits = _core.measure_limits()
    return limits["fma_f32_gflops"] * 1e9, limits["triad_gbytes"] * 1e9


def _row(name: str, events: list[Event]) -> Row:
    seconds = sum(event.seconds for event in events) or 1e-12
    flops = sum(event.flops for event in events)
    moved = sum(event.bytes for event in events)
    most_flops, most_bytes = _limits(_core.get_num_threads(), _core.isa())
    limit = max(flops / most_flops, moved / most_bytes) / seconds
    return Row(name, len(events), seconds, flops / seconds / 1e9, moved / seconds / 1e9, limit)


def profile() -> Profile:
    """Time operations: `with tw.profile() as p: …`, then `p.table()`, `p.chrome_trace(path)`."""
    return Profile()
