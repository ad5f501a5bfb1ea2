"""The Communicator protocol, alone and in real MPI jobs."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest

from thalweg.distributed import LocalComm
from thalweg.launched import launched_ranks

SECONDS_TO_END = 5.0

# how the last rank fails -> exit status, text on standard error
FAILURES = {
    "exception": (1, "[rank 1] ValueError: this rank is out of luck"),
    "thread": (1, "[rank 1] ValueError: a thread is out of luck"),
    "exit": (7, ""),
    "message": (1, "this rank gives up"),
    "interrupt": (130, "[rank 1] KeyboardInterrupt"),
    "status": (9, ""),
}

# variables of the launcher -> ranks
LAUNCHERS = [
    ({}, 1),
    ({"OMPI_COMM_WORLD_SIZE": "3", "PMIX_RANK": "0"}, 3),
    ({"PMI_SIZE": "2", "PMI_RANK": "1"}, 2),
    ({"MV2_COMM_WORLD_SIZE": "4"}, 4),
    ({"PMIX_RANK": "0", "SLURM_STEP_NUM_TASKS": "8"}, 8),
    ({"PMIX_RANK": "0"}, None),
    ({"SLURM_STEP_NUM_TASKS": "8"}, 1),  # a batch script, not srun
]

STRIDED = np.zeros((4, 6))[:, ::2]
READ_ONLY = np.broadcast_to(np.zeros(1), (1,))

# call -> error, message
REFUSED = [
    (lambda c: c.allreduce([1.0]), TypeError, "allreduce: array must be a NumPy array, got list"),
    (
        lambda c: c.allreduce(np.zeros(2, np.float16)),
        TypeError,
        "allreduce: dtype must be float32, float64 or int64, got float16",
    ),
    (lambda c: c.broadcast(np.zeros(2, ">f8")), TypeError, "float64 or int64, got >f8"),
    (lambda c: c.allreduce(STRIDED), ValueError, "must be C-contiguous, got shape (4, 3)"),
    (lambda c: c.iallreduce(READ_ONLY), ValueError, "array is read-only"),
    (lambda c: c.recv(READ_ONLY, 0), ValueError, "recv: array is read-only"),
    (
        lambda c: c.allreduce(np.zeros(2), op="mean"),
        ValueError,
        "allreduce: op must be one of sum, max, min, got 'mean'",
    ),
    (lambda c: c.send(np.zeros(2), 1), ValueError, "send: dest must be in [0, 1), got 1"),
    (lambda c: c.irecv(np.zeros(2), -1), ValueError, "recv: source must be in [0, 1), got -1"),
    (lambda c: c.broadcast(np.zeros(2), 5), ValueError, "broadcast: root must be in [0, 1), got 5"),
    (lambda c: c.gather(None, 1), ValueError, "gather: root must be in [0, 1), got 1"),
    (lambda c: c.recv(np.zeros(2), 0), RuntimeError, "recv: nothing was sent with this tag"),
]


@pytest.mark.parametrize(("ranks", "kind"), [(0, "LocalComm 1"), (1, "LocalComm 1")])
def test_every_method_alone(launch, ranks, kind):
    assert launch(ranks, "communicator.py").stdout.split("\n")[0] == kind


@pytest.mark.parametrize("ranks", [2, 3])
def test_every_method_in_a_job(launch, ranks):
    job = launch(ranks, "communicator.py")
    assert job.stdout == f"MpiComm {ranks}\n"
    assert job.stderr == ""


@pytest.mark.parametrize("call_error_message", REFUSED, ids=[row[2] for row in REFUSED])
def test_refuses_before_sending(call_error_message):
    call, error, message = call_error_message
    with pytest.raises(error) as caught:
        call(LocalComm())
    assert message in str(caught.value)


def test_world_is_local_outside_mpirun():
    program = """
import sys
from thalweg.distributed import LocalComm, world
assert isinstance(world(), LocalComm)
assert "mpi4py" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(("environ", "ranks"), LAUNCHERS)
def test_launchers_are_recognised(environ, ranks):
    assert launched_ranks(environ) == ranks


@pytest.mark.parametrize("how", FAILURES)
def test_failure_of_one_rank_ends_the_job(launch, tmp_path, how):
    status, text = FAILURES[how]
    moment = tmp_path / "moment"
    job = launch(2, "fail.py", how, moment, check=False)
    assert time.monotonic() - float(moment.read_text()) < SECONDS_TO_END
    assert job.returncode == status, job.stderr
    assert text in job.stderr


def test_traceback_names_the_rank_on_every_line(launch, tmp_path):
    job = launch(3, "fail.py", "exception", tmp_path / "moment", check=False)
    lines = [line for line in job.stderr.splitlines() if line.startswith("[rank ")]
    assert lines[0] == "[rank 2] Traceback (most recent call last):"
    assert any("in raise_exception" in line for line in lines)
    assert all(line.startswith("[rank 2] ") for line in lines)


def test_mpirun_without_mpi4py_is_an_error(launch, tmp_path):
    blocker = tmp_path / "mpi4py" / "__init__.py"
    blocker.parent.mkdir()
    blocker.write_text("raise ImportError('No module named mpi4py')\n")
    job = launch(2, "communicator.py", check=False, PYTHONPATH=str(tmp_path))
    assert job.returncode != 0
    assert "RuntimeError: world: mpirun started 2 ranks, but mpi4py cannot" in job.stderr
    assert "thalweg[mpi]" in job.stderr
    assert "LocalComm" not in job.stdout


def test_library_of_another_mpi_is_an_error(launch):
    """Each rank of a foreign mpirun finds itself alone in its own MPI."""
    job = launch(0, "communicator.py", check=False, PMI_SIZE="4")
    assert job.returncode == 1
    assert "RuntimeError: world: mpirun started 4 ranks, but mpi4py's library" in job.stderr
