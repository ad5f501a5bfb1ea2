"""The README's programs run as printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[1] / "README.md"
BLOCK = re.compile(r"(?:<!-- (\w+) -->\n)?```python\n(.*?)```", re.DOTALL)
BLOCKS = BLOCK.findall(README.read_text())


def run(label: str) -> dict[str, object]:
    names: dict[str, object] = {}
    for found, code in BLOCKS:
        if found == label:
            exec(compile(code, f"README ({label or 'NumPy'})", "exec"), names)
    return names


def test_numpy_loop_learns_and_the_trainer_fits() -> None:
    names = run("")
    assert float(names["loss"]) < 1.1  # type: ignore[arg-type]
    assert len(names["history"]) == 5  # type: ignore[arg-type]


@pytest.mark.torch
def test_pytorch_loop_runs() -> None:
    names = run("torch")
    assert all(p.grad.abs().max() == 0 for p in names["model"].parameters())  # type: ignore[attr-defined]


def test_mpirun_program_runs_in_one_process(capsys: pytest.CaptureFixture[str]) -> None:
    run("mpirun")
    assert "test accuracy on 1 ranks" in capsys.readouterr().out
