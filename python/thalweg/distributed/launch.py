"""Which job this process belongs to, and how the job ends when one of its ranks fails.

MPI alone gives neither answer: a script started by mpirun without mpi4py would run N times as if
alone, and a rank that dies of an exception leaves the others waiting for it for ever.
"""

from __future__ import annotations

import atexit
import functools
import os
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any

from ..launched import exit_status, launched_ranks
from .comm import Communicator, LocalComm

if TYPE_CHECKING:
    from .mpi import MpiComm


@functools.cache
def world() -> Communicator:
    """The job that this process is part of: a `LocalComm` alone, an `MpiComm` under mpirun.

    In a job of several ranks an exception that nobody catches, in any thread of any rank, prints
    its traceback under the rank's name and ends the job; so does `sys.exit` with a failure status.

    Raises RuntimeError where mpirun started several ranks but mpi4py is missing, or belongs to
    another MPI than mpirun: running on would mean so many unconnected serial runs.
    """
    ranks = launched_ranks(os.environ)
    if ranks == 1:
        return LocalComm()
    comm = _mpi_world(ranks)
    end_job_on_failure(comm)
    return comm


def _mpi_world(ranks: int | None) -> MpiComm:
    # Open MPI's one-sided component over UCX prints a line about its absence; it is not used.
    os.environ.setdefault("OMPI_MCA_osc", "^ucx")
    started = "several ranks" if ranks is None else f"{ranks} ranks"
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # RuntimeError: no MPI library to load
        raise RuntimeError(
            f"world: mpirun started {started}, but mpi4py cannot be imported ({error}); "
            "install the extra thalweg[mpi]"
        ) from error
    from .mpi import MpiComm

    found = MPI.COMM_WORLD.size
    if ranks is not None and found != ranks:
        library = MPI.Get_library_version().split(",")[0]
        raise RuntimeError(
            f"world: mpirun started {ranks} ranks, but mpi4py's library ({library}) sees {found}; "
            "start the job with the mpirun of that library"
        )
    return MpiComm(MPI.COMM_WORLD)


def end_job_on_failure(comm: Communicator) -> None:
    """Let an uncaught exception of this process end every rank of `comm`'s job."""
    owner = os.getpid()  # a forked child inherits the hooks, but is not a rank

    def fail(kind: type[BaseException], value: BaseException | None, tb: Any) -> None:
        report = "".join(traceback.format_exception(kind, value, tb))
        prefix = f"[rank {comm.rank}] "
        sys.stderr.write("".join(prefix + line for line in report.splitlines(keepends=True)))
        if os.getpid() == owner:
            comm.abort(130 if issubclass(kind, KeyboardInterrupt) else 1)

    def fail_in_thread(args: threading.ExceptHookArgs) -> None:
        if not issubclass(args.exc_type, SystemExit):  # ends its thread only
            fail(args.exc_type, args.exc_value, args.exc_traceback)

    def abort_after_failure() -> None:
        status = exit_status()
        if status and os.getpid() == owner:
            comm.abort(status if isinstance(status, int) else 1)

    sys.excepthook = fail
    threading.excepthook = fail_in_thread
    atexit.register(abort_after_failure)
