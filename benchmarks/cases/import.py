"""What it costs to have a library: seconds to import it in a fresh process, the memory that the
process then holds, and what is installed on disk (a detail of the record, in MiB)."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from measure import Record, Run, Timing

# Peak memory of the process, in KiB, includes the interpreter's own 10 MiB.
PROGRAM = """
import json, resource, sys, time
start = time.perf_counter()
import {module}
seconds = time.perf_counter() - start
version = {module}.__version__
print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, version]))
"""
# Packages that are installed together.
PARTS = {"thalweg": ["thalweg"], "torch": ["torch"], "jax": ["jax", "jaxlib"],
         "numpy": ["numpy"], "sklearn": ["sklearn", "scipy"]}  # fmt: skip


def records(run: Run) -> Iterator[Record]:
    samples: dict[str, list[tuple[float, float, str]]] = {name: [] for name in run.contestants}
    for _ in range(run.rounds if not run.quick else 7):
        for name, values in samples.items():
            values.append(_import(name))
    timings = {name: Timing.of([v[0] for v in values]) for name, values in samples.items()}
    for name, timing in timings.items():
        yield Record(
            "import",
            "import",
            name,
            samples[name][0][2],
            timing.median_s,
            timing.q1_s,
            timing.q3_s,
            ratio=timing.median_s / timings["thalweg"].median_s,
            limit_fraction=None,
            detail={
                "mebibytes": samples[name][-1][1] / 1024,
                "installed_mebibytes": _installed(name),
            },
        )


def cases(quick: bool) -> list[object]:
    """None: but the libraries that there are."""
    return []


def _import(module: str) -> tuple[float, float, str]:
    job = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(module=module)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    seconds, kibibytes, version = json.loads(job.stdout)
    return seconds, kibibytes, version


def _installed(name: str) -> float:
    total = 0
    for part in PARTS[name]:
        spec = importlib.util.find_spec(part)
        if spec and spec.origin:
            files = Path(spec.origin).parent.rglob("*")
            total += sum(file.stat().st_size for file in files if file.is_file())
    return total / (1 << 20)
