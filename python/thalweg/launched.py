"""What launched this process, and the status with which it leaves.

MPI_Finalize waits for the ranks that go on, so a rank that leaves with a failure has to abort its
job instead. SystemExit reaches no hook: the status is noted in `sys.exit`. And `sys.exit(main())`
looks `sys.exit` up before `main` runs, so that this is done when thalweg is imported, in a job of
several ranks only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

# Open MPI; MPICH, Intel MPI and Slurm's PMI-2; MVAPICH.
_SIZE_VARIABLES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")

_exit = sys.exit
_status: Any = None


def launched_ranks(environ: Mapping[str, str]) -> int | None:
    """Ranks that the launcher started: 1 outside mpirun, None where only MPI itself can tell."""
    for name in _SIZE_VARIABLES:
        if name in environ:
            return int(environ[name])
    if "PMIX_RANK" in environ:  # srun --mpi=pmix; its step size counts ranks only then
        return int(environ["SLURM_STEP_NUM_TASKS"]) if "SLURM_STEP_NUM_TASKS" in environ else None
    return 1


def exit_status() -> Any:
    """What `sys.exit` was last called with; None before, and outside a job of several ranks."""
    return _status


def note_exit_status() -> None:
    """Let `exit_status` know, if this is a job of several ranks."""
    if launched_ranks(os.environ) != 1:
        sys.exit = _note_and_exit


def _note_and_exit(code: Any = None, /) -> NoReturn:
    global _status
    _status = code
    _exit(code)
