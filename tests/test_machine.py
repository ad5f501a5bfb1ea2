"""The pool and the choice of instruction set: what a call may rely on, and what it leaves alone."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from thalweg import _core

LARGE = 1 << 20  # elements: enough work for every thread of the pool


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("name", _core.available_isas())
def test_thalweg_isa_chooses_the_table(name: str) -> None:
    done = run_python("import thalweg; print(thalweg.isa())", THALWEG_ISA=name)
    assert done.stdout.strip() == name, done.stderr


def test_an_unknown_isa_is_an_error_that_lists_the_known_ones() -> None:
    done = run_python("import thalweg; thalweg.isa()", THALWEG_ISA="sse9")
    assert done.returncode != 0
    assert "THALWEG_ISA: unknown instruction set 'sse9', expected one of baseline, " in done.stderr
    with pytest.raises(ValueError, match="use_isa: unknown instruction set ''"):
        _core.use_isa("")


@pytest.mark.parametrize(
    ("asked", "got"), [("1", 1), ("3", 3), ("0", None), ("many", None), ("", None)]
)
def test_thalweg_num_threads(asked: str, got: int | None) -> None:
    done = run_python("import thalweg; print(thalweg.get_num_threads())", THALWEG_NUM_THREADS=asked)
    assert done.returncode == 0, done.stderr
    cpus = len(os.sched_getaffinity(0))
    assert int(done.stdout) in ([got] if got else range(1, cpus + 1))


def test_threads_follow_the_affinity_mask() -> None:
    cpu = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, [{cpu}])"
    code += "\nimport thalweg; print(thalweg.get_num_threads())"
    environment = {k: v for k, v in os.environ.items() if k != "THALWEG_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "1"


@pytest.mark.parametrize("n", [0, -1, 1025])
def test_set_num_threads_refuses_what_is_out_of_range(n: int) -> None:
    before = _core.get_num_threads()
    with pytest.raises(ValueError, match=f"n must be between 1 and 1024, got {n}"):
        _core.set_num_threads(n)
    assert _core.get_num_threads() == before


def test_many_python_threads_may_call_at_once() -> None:
    _core.set_num_threads(4)
    inputs = [np.random.default_rng(i).standard_normal(LARGE).astype(np.float32) for i in range(8)]
    with ThreadPoolExecutor(8) as executor:
        for _ in range(5):
            results = list(executor.map(lambda x: _core.add(x, 1.0), inputs))
            for x, y in zip(inputs, results, strict=True):
                np.testing.assert_array_equal(y, x + np.float32(1))


def test_threads_may_change_while_others_compute() -> None:
    x = np.ones(LARGE, np.float32)
    stop = threading.Event()
    wrong: list[int] = []

    def compute() -> None:
        while not stop.is_set():
            wrong.extend(np.flatnonzero(_core.add(x, x) != 2).tolist())

    workers = [threading.Thread(target=compute) for _ in range(2)]
    for worker in workers:
        worker.start()
    for n in [1, 3, 2, 4, 1, 2] * 5:
        _core.set_num_threads(n)
    stop.set()
    for worker in workers:
        worker.join()
    assert not wrong


def child_sum(n: int) -> float:
    return float(_core.sum(np.ones(n, np.float32)))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_may_be_started_after_threaded_work(method: str) -> None:
    _core.set_num_threads(4)
    assert child_sum(LARGE) == LARGE
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map_async(child_sum, [LARGE] * 4).get(timeout=60) == [LARGE] * 4
    assert child_sum(LARGE) == LARGE


UPWARD, DOWNWARD, NEAREST = 0x800, 0x400, 0


@pytest.mark.parametrize(("mode", "expected"), [(UPWARD, 1 + 2**-23), (DOWNWARD, 1.0)])
def test_workers_round_as_their_caller_does(mode: int, expected: float) -> None:
    libm = ctypes.CDLL("libm.so.6")
    _core.set_num_threads(4)
    one, tiny = np.ones(LARGE, np.float32), np.full(LARGE, 1e-20, np.float32)
    _core.add(one, tiny)
    assert libm.fesetround(mode) == 0
    try:
        result = _core.add(one, tiny)
        assert libm.fegetround() == mode
    finally:
        libm.fesetround(NEAREST)
    assert set(result.tolist()) == {expected}
    assert set(_core.add(one, tiny).tolist()) == {1.0}


def test_limits_are_positive_and_name_their_units() -> None:
    limits = _core.measure_limits(0.02)
    assert limits.keys() == {"fma_f32_gflops", "fma_f64_gflops", "read_gbytes", "triad_gbytes"}
    assert all(value > 0 for value in limits.values())
