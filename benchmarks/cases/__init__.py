"""The suites: one module each, with `records(run)` that yields a Record per row, and most of them
with `cases(quick)`, from which every library's process takes its sides.

A new suite is a module here and its name in SUITES.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterator
from typing import Any, Protocol, cast

from measure import Record, Run

SUITES = ("matmul", "optim", "norm", "step", "conv", "connectivity", "import", "scaling", "gpu")


class Suite(Protocol):
    cases: Any  # Callable[[bool], Iterable[Case]], where each library has a process

    def records(self, run: Run) -> Iterator[Record]: ...


def load_suite(name: str) -> Suite:
    if name not in SUITES:
        near = difflib.get_close_matches(name, SUITES, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise SystemExit(f"unknown suite {name!r}, have {', '.join(SUITES)}{hint}")
    return cast("Suite", importlib.import_module(f"cases.{name}"))
