"""One process per library. The one whose turn it is has the machine to itself: the others are
stopped, so that no idle thread of theirs spins beside it. A library's own threads do as they do.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import time
from collections.abc import Iterable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from case import Array, Case, Side

# Thread pools read these when their library is imported.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
LIBRARIES = ("thalweg", "torch", "numpy", "jax", "sklearn")


class Contestant:
    """A library in its own process, which builds the suite's cases there and runs its sides."""

    def __init__(self, library: str, suite: str, quick: bool, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, library, suite, quick, threads), daemon=True
        )
        self._process.start()
        theirs.close()
        self.version: str = self._receive()  # raises ImportError

    def make(self, case: str, impl: str) -> list[Array]:
        """Builds a side, calls it once, returns its answer; raises what it raises."""
        answer: list[Array] = self._ask("make", case, impl)
        return answer

    def sample(self, impl: str, repeats: int) -> float:
        """Seconds per call, over that many calls after some to warm up."""
        seconds: float = self._ask("sample", impl, repeats)
        return seconds

    def forget(self) -> None:
        if self._process.is_alive():
            self._ask("forget")

    def close(self) -> None:
        self._process.kill()
        self._process.join()

    def _ask(self, *request: object) -> Any:
        if not self._process.is_alive():
            raise RuntimeError("its process died before")
        self._signal(signal.SIGCONT)
        with contextlib.suppress(BrokenPipeError):  # then there is no answer either
            self._pipe.send(request)
        return self._receive()

    def _receive(self) -> Any:
        try:
            answer = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            raise RuntimeError(f"its process died ({self._process.exitcode})") from None
        self._signal(signal.SIGSTOP)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _signal(self, number: int) -> None:
        if self._process.pid:
            os.kill(self._process.pid, number)


def _serve(pipe: Connection, library: str, suite: str, quick: bool, threads: int) -> None:
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:threads])  # the one setting that every library obeys
    try:
        module = importlib.import_module(library)
        if library == "torch":
            module.set_num_threads(threads)
        cases = {case.name: case for case in _cases(suite, quick)}
    except Exception as error:
        return pipe.send(_plain(error))
    pipe.send(str(module.__version__))
    sides: dict[str, Side] = {}
    while True:
        command, *arguments = pipe.recv()
        try:
            if command == "make":
                case, impl = arguments
                sides[impl] = cases[case].sides[impl]()
                answer: object = _first_answer(sides[impl])
            elif command == "sample":
                answer = sample(sides[arguments[0]], arguments[1])
            else:
                answer = sides.clear()
        except Exception as error:
            answer = _plain(error)
        pipe.send(answer)


def _cases(suite: str, quick: bool) -> Iterable[Case]:
    from cases import load_suite

    return load_suite(suite).cases(quick)


def _first_answer(side: Side) -> list[Array]:
    if side.prepare:
        side.prepare()
    side.call()
    return [np.array(array) for array in side.answer()]


def _plain(error: Exception) -> Exception:
    """Libraries raise classes that the parent process does not have."""
    kind = ImportError if isinstance(error, ImportError) else RuntimeError
    text = str(error).strip() or "no message"
    return kind(f"{type(error).__name__}: {text.splitlines()[0]}")


def sample(side: Side, repeats: int) -> float:
    if repeats > 1:  # the threads and the caches are cold after the others' turns
        for _ in range(1 + repeats // 4):
            side.call()
    if side.prepare is None:
        start = time.perf_counter()
        for _ in range(repeats):
            side.call()
        return (time.perf_counter() - start) / repeats
    seconds = 0.0
    for _ in range(repeats):
        side.prepare()
        start = time.perf_counter()
        side.call()
        seconds += time.perf_counter() - start
    return seconds / repeats
