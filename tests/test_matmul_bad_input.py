"""Products: every error, nothing written after one, and no byte touched outside the arrays."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest

from thalweg import _core

Array = npt.NDArray[Any]


def integers(rng: np.random.Generator, rows: int, columns: int) -> Array:
    return rng.integers(-8, 9, (rows, columns)).astype(np.float32)


F32 = np.ones((4, 4), np.float32)


def _read_only(x: Array) -> Array:
    x.flags.writeable = False
    return x


ERRORS: list[tuple[str, Callable[[], Any], type[Exception], str]] = [
    ("inner", lambda: _core.matmul(np.ones((4, 3)), np.ones((5, 2))), ValueError,
     r"matmul: inner dimensions differ, a is \(4, 3\), b is \(5, 2\)"),
    ("inner 1-D", lambda: _core.matmul(np.ones(3), np.ones(4)), ValueError,
     r"matmul: inner dimensions differ, a is \(3,\), b is \(4,\)"),
    ("batch", lambda: _core.matmul(np.ones((2, 4, 3)), np.ones((3, 3, 2))), ValueError,
     r"matmul: batch dimensions do not broadcast, a is \(2, 4, 3\), b is \(3, 3, 2\)"),
    ("scalar", lambda: _core.matmul(np.ones((), np.float32), F32), ValueError,
     "matmul: a must have at least one dimension, got a scalar; use mul"),
    ("list", lambda: _core.matmul([[1.0]], F32), TypeError, "matmul: a must be an array, got list"),
    ("integers", lambda: _core.matmul(F32.astype(np.int32), F32), TypeError,
     "matmul: a must be float32, float64 or bfloat16, got int32"),
    ("complex", lambda: _core.matmul(F32, F32.astype(np.complex64)), TypeError,
     "matmul: b has dtype complex64"),
    ("mixed", lambda: _core.matmul(F32, F32.astype(np.float64)), TypeError,
     "matmul: b is float64 but a is float32; convert one of them"),
    ("out dtype", lambda: _core.matmul(F32, F32, out=np.empty((4, 4))), TypeError,
     "matmul: out is float64 but a is float32"),
    ("out shape", lambda: _core.matmul(F32, F32, out=np.empty((4, 5), np.float32)), ValueError,
     r"matmul: out has shape \(4, 5\), expected \(4, 4\)"),
    ("out rank", lambda: _core.matmul(F32, F32, out=np.empty((1, 4, 4), np.float32)), ValueError,
     r"matmul: out has shape \(1, 4, 4\), expected \(4, 4\)"),
    ("out read-only", lambda: _core.matmul(F32, F32, out=_read_only(F32.copy())), ValueError,
     "matmul: out is read-only"),
    ("out is a list", lambda: _core.matmul(F32, F32, out=[0.0]), TypeError,
     "matmul: out must be an array, got list"),
    ("out overlaps itself", lambda: _core.matmul(
        F32, F32, out=np.lib.stride_tricks.as_strided(F32.copy(), (4, 4), (4, 4))), ValueError,
     "matmul: out overlaps itself"),
    ("accumulate", lambda: _core.matmul(F32, F32, accumulate=True), ValueError,
     "matmul: accumulate=True adds to out, but out is None"),
    ("bias length", lambda: _core.matmul(F32, F32, bias=np.ones(5, np.float32)), ValueError,
     r"matmul: bias must have shape \(4,\), got \(5,\)"),
    ("bias rank", lambda: _core.matmul(F32, F32, bias=np.ones((1, 4), np.float32)), ValueError,
     r"matmul: bias must have shape \(4,\), got \(1, 4\)"),
    ("bias dtype", lambda: _core.matmul(F32, F32, bias=np.ones(4)), TypeError,
     "matmul: bias is float64 but a is float32"),
    ("bias of a vector", lambda: _core.matmul(F32, F32[0], bias=np.ones(1, np.float32)), ValueError,
     r"matmul: bias is added to columns, but b is \(4,\) and has none"),
    ("activation", lambda: _core.matmul(F32, F32, activation="swish"), ValueError,
     "matmul: activation must be None or one of 'identity', 'relu', .*, got 'swish'"),
    ("activation type", lambda: _core.matmul(F32, F32, activation=cast(Any, 1)), TypeError,
     "matmul: activation must be a string, got int"),
    ("precision", lambda: _core.matmul(F32, F32, precision="low"), ValueError,
     "matmul: precision must be 'strict', 'highest', 'high' or 'medium', got 'low'"),
    ("rank", lambda: _core.matmul(np.ones((1,) * 9, np.float32), F32), ValueError,
     "matmul: a has 9 dimensions, at most 8"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "error", "message"), [row[1:] for row in ERRORS], ids=[row[0] for row in ERRORS]
)
def test_errors_say_what_was_expected(
    call: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()


def _overlapping(kind: str) -> tuple[Array, Array, Array, Array | None, str]:
    memory = np.arange(200, dtype=np.float32)
    x, other = memory[:16].reshape(4, 4), np.ones((4, 4), np.float32)
    if kind == "out is a":
        return x, other, x, None, "a"
    if kind == "out is b":
        return other, x, x, None, "b"
    if kind == "all are one":
        return x, x, x, None, "a"
    if kind == "by one element":
        return x, other, memory[15:31].reshape(4, 4), None, "a"
    if kind == "reversed":
        return other, x[::-1, ::-1], memory[:16].reshape(4, 4), None, "b"
    return x, other, memory[32:48].reshape(4, 4), memory[44:48], "bias"


@pytest.mark.parametrize(
    "kind", ["out is a", "out is b", "all are one", "by one element", "reversed", "bias"]
)
def test_an_output_that_is_an_input_is_refused_untouched(kind: str) -> None:
    a, b, out, bias, name = _overlapping(kind)
    before = [x.copy() for x in (a, b, out)]
    with pytest.raises(ValueError, match=f"matmul: out shares memory with {name}, .*another array"):
        _core.matmul(a, b, out=out, bias=bias)
    for x, y in zip((a, b, out), before, strict=True):
        np.testing.assert_array_equal(x, y)


OUT_ERRORS: list[dict[str, Any]] = [
    {"bias": np.ones(5, np.float32)},
    {"bias": np.ones(4)},
    {"activation": "swish"},
    {"precision": "low"},
    {"accumulate": True, "activation": "swish"},
]


@pytest.mark.parametrize("arguments", OUT_ERRORS, ids=str)
def test_nothing_is_written_after_an_error(arguments: dict[str, Any]) -> None:
    out = np.full((4, 4), 5, np.float32)
    with pytest.raises((ValueError, TypeError)):
        _core.matmul(F32, F32, out=out, **arguments)
    np.testing.assert_array_equal(out, np.full((4, 4), 5))


# --- process ----------------------------------------------------------------------------------


def test_eight_threads_call_at_once() -> None:
    rng = np.random.default_rng(13)
    shapes = [(70, 90, 50), (8, 8, 8), (150, 400, 700), (3, 500, 200)]
    cases = [(integers(rng, m, k), integers(rng, k, n)) for m, n, k in shapes]
    expected = [np.matmul(a, b) for a, b in cases]

    def work(seed: int) -> None:
        for i in np.random.default_rng(seed).integers(0, len(cases), 40):
            np.testing.assert_array_equal(_core.matmul(*cases[i]), expected[i])

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(work, seed) for seed in range(8)]:
            future.result()


OUT_OF_MEMORY = """
import resource
import numpy as np
from thalweg import _core

_core.set_num_threads(1)
a, b = np.ones((100, 384), np.float32), np.ones((384, 3000), np.float32)
out = np.full((100, 3000), 5, np.float32)
_core.matmul(a[:2, :2], b[:2, :2])
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + (1 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
try:
    _core.matmul(a, b, out=out, accumulate=True)
except MemoryError:
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
else:
    raise SystemExit("no MemoryError")
assert (out == 5).all()
_core.matmul(a, b, out=out, accumulate=True)
assert (out == 389).all()
"""


@pytest.mark.unsanitized
@pytest.mark.skipif(
    resource.getrlimit(resource.RLIMIT_AS)[1] != resource.RLIM_INFINITY,
    reason="the address space of this process is limited already",
)
def test_out_of_memory_leaves_everything_as_it_was() -> None:
    subprocess.run([sys.executable, "-c", OUT_OF_MEMORY], check=True, timeout=60)
