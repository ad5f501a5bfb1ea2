"""What nvcc makes of the kernels, by its own report: hot ones keep their values in registers."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NVCC = shutil.which("nvcc", path="/usr/local/cuda/bin") or shutil.which("nvcc")
HOT = {
    "gemm": ["multiply_fma", "multiply_mma"],
    "conv": ["multiply_mma", "add_blocks"],
    "optim": ["step", "sum_squares"],
    "elementwise": ["apply_unary", "apply_binary"],
}
ENTRY = re.compile(
    r"Compiling entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill", re.S
)


@pytest.mark.slow
@pytest.mark.skipif(NVCC is None, reason="needs nvcc")
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90a"])
@pytest.mark.parametrize("source", HOT)
def test_hot_kernels_do_not_spill_registers(source: str, architecture: str, tmp_path: Path) -> None:
    flags = ["-std=c++20", "-fmad=false", "--expt-relaxed-constexpr", "-Xptxas=-v", "-cubin"]
    target = f"-gencode=arch=compute_{architecture[3:]},code={architecture}"
    command = [str(NVCC), *flags, target, f"-I{ROOT}/csrc", f"{ROOT}/csrc/cuda/{source}.cu"]
    result = subprocess.run(
        [*command, "-o", str(tmp_path / "kernels")], check=True, capture_output=True, text=True
    )
    report = ENTRY.findall(result.stderr + result.stdout)
    for kernel in HOT[source]:
        found = [(name, stores, loads) for name, stores, loads in report if kernel in name]
        assert found, f"no kernel {kernel} in the report"
        assert [entry for entry in found if entry[1:] != ("0", "0")] == []
