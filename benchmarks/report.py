"""Results as a table for people and as one JSON record a line for programs."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import thalweg as tw
from case import last_level_cache_bytes
from measure import Record


def header(suite: str, limits: Mapping[str, float], absent: Mapping[str, str]) -> dict[str, Any]:
    """Everything that a number needs to mean something."""
    return {
        "suite": suite,
        "machine": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "last_level_cache_MiB": last_level_cache_bytes() >> 20,
        "isa": tw.isa(),
        "threads": tw.get_num_threads(),
        "commit": _commit(),
        "python": platform.python_version(),
        "limits": {name: round(value, 2) for name, value in limits.items()},
        "absent": dict(absent),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _commit() -> str:
    def git(*args: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *args]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


class Report:
    """Prints rows as they come, and counts what they say."""

    def __init__(self, head: Mapping[str, Any], json_file: IO[str] | None) -> None:
        self._json = json_file
        self._losses: list[str] = []
        self._comparisons = 0
        self._write({"header": dict(head)})
        for key, value in head.items():
            print(f"# {key}: {value if not isinstance(value, dict) else _listed(value)}")
        print(
            f"{'case':<30} {'impl':<16} {'median':>10} {'q1':>10} {'q3':>10} "
            f"{'x ours':>7} {'of limit':>8} {'GFLOP/s':>8} {'error':>8}"
        )

    def add(self, record: Record) -> None:
        self._write(asdict(record))
        limit = "" if record.limit_fraction is None else f"{record.limit_fraction:.0%}"
        times = " ".join(f"{duration(t):>10}" for t in (record.median_s, record.q1_s, record.q3_s))
        extra = " ".join(
            f"{record.detail[key]:>8{form}}" if key in record.detail else " " * 8
            for key, form in (("gflops", ".1f"), ("error", ".1e"))
        )
        print(
            f"{record.case:<30} {record.impl:<16} {times} {record.ratio:>7.2f} {limit:>8} {extra}",
            flush=True,
        )
        if not record.impl.startswith("thalweg"):
            self._comparisons += 1
            if record.ratio < 1:
                self._losses.append(f"{record.case} to {record.impl} ({record.ratio:.2f})")

    def close(self, absent: Mapping[str, str]) -> None:
        for name, reason in absent.items():
            print(f"absent: {name}: {reason}")
            self._write({"absent": name, "reason": reason})
        wins = self._comparisons - len(self._losses)
        if self._comparisons:
            print(f"faster in {wins} of {self._comparisons} comparisons")
        for loss in self._losses:
            print(f"slower: {loss}")

    def _write(self, record: Mapping[str, Any]) -> None:
        if self._json:
            self._json.write(json.dumps(record) + "\n")
            self._json.flush()


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items()) or "none"


def duration(seconds: float) -> str:
    """ "1.23 ms": for people."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.2f} {unit}"
    return f"{seconds * 1e9:.0f} ns"
