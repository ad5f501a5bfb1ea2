"""run.py SUITE [--vs torch,numpy] [--json FILE] [--quick]: ours beside its peers, losses included.

Each case checks the answers, then times all implementations in alternation, at least 20 rounds,
with the same number of threads. Under mpirun only rank 0 reports.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys

# Thread pools read these when their library is imported, so they are set before any is.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run.py", description=__doc__)
    parser.add_argument("suite", help="a module of benchmarks/cases: optim, matmul, scaling, gpu")
    parser.add_argument("--vs", default="", metavar="PEERS", help="torch,numpy,jax,sklearn")
    parser.add_argument("--json", metavar="FILE", help="append one record a line")
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
    cores = os.sched_getaffinity(0)
    for name in _THREAD_VARIABLES:
        os.environ[name] = str(options.threads or len(cores))

    import thalweg as tw
    from case import Peers
    from cases import load_suite
    from measure import Run
    from report import Report, header
    from thalweg import _core

    suite = load_suite(options.suite)
    comm = tw.distributed.world()
    all_cores = set().union(*comm.allgather(cores))
    threads = options.threads or max(1, len(all_cores) // comm.size)
    tw.set_num_threads(threads)
    peers = Peers.load(filter(None, options.vs.split(",")), threads)
    limits = _core.measure_limits()
    run = Run(options.quick, options.rounds, options.only, peers, limits)
    with contextlib.ExitStack() as stack:
        json_file = None
        if comm.rank == 0 and options.json:
            json_file = stack.enter_context(open(options.json, "a", encoding="utf-8"))
        if comm.rank:
            silence = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(contextlib.redirect_stdout(silence))
        report = Report(header(options.suite, limits, peers.absent), json_file)
        for record in suite.records(run):
            report.add(record)
        report.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
