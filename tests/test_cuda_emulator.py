"""The emulator, which runs CUDA kernels without a GPU: right ones run, wrong ones are caught."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RIGHT, WRONG, REFUSED, SANITIZER = 0, 1, 2, 99

# case -> how the program ends in forward and in reverse order, and what it says
CASES = [
    ("sum", RIGHT, RIGHT, "503506"),
    ("async_copy", RIGHT, RIGHT, ""),
    ("collectives", RIGHT, RIGHT, ""),
    ("mma_bf16", RIGHT, RIGHT, ""),
    ("mma_tf32", RIGHT, RIGHT, ""),
    ("missing_barrier", WRONG, RIGHT, ""),  # the two orders disagree
    ("missing_tail", WRONG, WRONG, "295296"),
    ("missing_wait", WRONG, WRONG, ""),
    ("wrong_index", SANITIZER, SANITIZER, "heap-buffer-overflow"),
    ("wrong_shared_index", SANITIZER, SANITIZER, "heap-buffer-overflow"),
    ("divergent_barrier", REFUSED, REFUSED, "thread 7 has ended"),
    ("divergent_warp", REFUSED, REFUSED, "divergence"),
]


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = os.environ.get("CXX") or shutil.which("c++")
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    program = tmp_path_factory.mktemp("emulator") / "planted"
    sources = [ROOT / "tests/cuda/planted.cpp", *sorted((ROOT / "csrc/cuda/emulate").glob("*.cpp"))]
    flags = ["-std=gnu++20", "-O1", "-g", "-fsanitize=address", "-DTHALWEG_CUDA_EMULATED"]
    subprocess.run(
        [compiler, *flags, f"-I{ROOT / 'csrc'}", *map(str, sources), "-o", str(program)], check=True
    )
    return program


@pytest.mark.parametrize(("case", "forward", "reverse", "says"), CASES, ids=[c[0] for c in CASES])
def test_emulator_runs_right_kernels_and_catches_wrong_ones(
    planted: Path, case: str, forward: int, reverse: int, says: str
) -> None:
    environment = {**os.environ, "ASAN_OPTIONS": f"exitcode={SANITIZER}:detect_leaks=0"}
    for order, expected in (("forward", forward), ("reverse", reverse)):
        result = subprocess.run(
            [str(planted), case, order],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == expected, f"{order}: {result.stdout}{result.stderr}"
        if expected != RIGHT or case == "sum":
            assert says in result.stdout + result.stderr
