"""run.py SUITE [--vs torch,numpy,jax] [--json FILE | --save MACHINE] [--quick]

Ours beside its peers, losses included. Each case checks the answers, then times all implementations
in alternation with the same number of threads, each library in a process of its own while the
others are stopped. Under mpirun only rank 0 reports.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from measure import Run

RESULTS = Path(__file__).parent / "results"


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run.py", description=__doc__)
    parser.add_argument("suite", help="a module of benchmarks/cases: matmul, optim, norm, …")
    parser.add_argument("--vs", default="", metavar="PEERS", help="torch,numpy,jax,sklearn")
    parser.add_argument("--json", metavar="FILE", help="append one record a line")
    parser.add_argument("--save", metavar="MACHINE", help="write results/MACHINE/SUITE.json anew")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller cases")
    parser.add_argument("--rounds", type=int, default=20, help="at least 20 (default)")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--threads", type=int, help="of each rank; default: its cores")
    options = parser.parse_args(argv)
    if options.rounds < 20:
        parser.error(f"--rounds must be at least 20, got {options.rounds}")
    return options


def main(argv: list[str] | None = None) -> int:
    options = _parse(argv)
    from contestant import THREAD_VARIABLES

    cores = os.sched_getaffinity(0)
    for name in THREAD_VARIABLES:
        os.environ[name] = str(options.threads or len(cores))

    import thalweg as tw
    from cases import load_suite
    from measure import Run
    from report import Report, header
    from thalweg import _core

    suite = load_suite(options.suite)
    comm = tw.distributed.world()
    all_cores = set().union(*comm.allgather(cores))
    threads = options.threads or max(1, len(all_cores) // comm.size)
    tw.set_num_threads(threads)
    limits = _core.measure_limits()
    with contextlib.ExitStack() as stack:
        if comm.rank:
            silence = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(contextlib.redirect_stdout(silence))
        json_file = stack.enter_context(_json_file(options)) if comm.rank == 0 else None
        run = Run(options.quick, options.rounds, options.only, {}, limits, {})
        if hasattr(suite, "cases"):
            libraries = ["thalweg", *filter(None, options.vs.split(","))]
            run = stack.enter_context(_contest(run, libraries, options.suite, threads))
        report = Report(header(options.suite, limits, run.absent), json_file)
        for record in suite.records(run):
            report.add(record)
        report.close(run.absent)
    return 0


@contextlib.contextmanager
def _json_file(options: argparse.Namespace) -> Iterator[IO[str] | None]:
    path = RESULTS / options.save / f"{options.suite}.json" if options.save else options.json
    if path is None:
        yield None
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w" if options.save else "a", encoding="utf-8") as file:
        yield file


@contextlib.contextmanager
def _contest(run: Run, libraries: list[str], suite: str, threads: int) -> Iterator[Run]:
    """The run with a process for each library that can be imported."""
    from contestant import LIBRARIES, Contestant

    contestants = {}
    with contextlib.ExitStack() as stack:
        for library in libraries:
            if library not in LIBRARIES:
                raise SystemExit(f"--vs: unknown peer {library!r}, have {', '.join(LIBRARIES[1:])}")
            try:
                contestants[library] = Contestant(library, suite, run.quick, threads)
            except ImportError as error:
                run.absent[library] = str(error)
            else:
                stack.callback(contestants[library].close)
        yield dataclasses.replace(run, contestants=contestants)


if __name__ == "__main__":
    sys.exit(main())
