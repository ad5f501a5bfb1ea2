"""No kernel touches a byte outside its arrays: whole sweeps on guarded memory (guard_sweep.py)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from guard_sweep import FAMILIES
from thalweg import _core

pytestmark = pytest.mark.unsanitized
SWEEP = Path(__file__).with_name("guard_sweep.py")
ISA_FAMILIES = [
    *((isa, family) for isa in _core.available_isas() for family in FAMILIES),
    ("amx_emulated", "products"),
    ("amx_emulated", "convolution"),
]
DRAWS = {
    "products": 1000, "elementwise": 800, "rows": 1000, "convolution": 300, "pooling": 300,
    "optimizers": 250,
}  # fmt: skip


def sweep(tmp_path: Path, isa: str, family: str, where: str, draws: int) -> tuple[int, str]:
    """Exit status, and the last call with what was printed about it."""
    label = tmp_path / "label"
    command = [sys.executable, SWEEP, isa, family, where, str(draws), label]
    job = subprocess.run(command, capture_output=True, text=True)
    return job.returncode, f"{label.read_text()}\n{job.stderr}"


@pytest.mark.parametrize("where", ["begin", "end"])
@pytest.mark.parametrize(("isa", "family"), ISA_FAMILIES)
def test_no_byte_outside_the_arrays(tmp_path: Path, isa: str, family: str, where: str) -> None:
    draws = DRAWS[family] // (5 if isa == "amx_emulated" else 1)  # its tiles take their time
    status, last = sweep(tmp_path, isa, family, where, draws)
    assert status == 0, f"died ({status}) in {last}"


@pytest.mark.slow
@pytest.mark.parametrize("where", ["begin", "end"])
@pytest.mark.parametrize(("isa", "family"), ISA_FAMILIES)
def test_no_byte_in_long_sweeps(tmp_path: Path, isa: str, family: str, where: str) -> None:
    status, last = sweep(tmp_path, isa, family, where, 20 * DRAWS[family])
    assert status == 0, f"died ({status}) in {last}"


def test_an_overrun_by_one_element_is_caught(tmp_path: Path) -> None:
    status, last = sweep(tmp_path, _core.isa(), "planted", "end", 1)
    assert status < 0 and last.startswith("planted float"), f"status {status} in {last}"
