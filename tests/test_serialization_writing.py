"""Checkpoint files are written whole or not at all, and read in no more memory than they take."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from thalweg.files import atomic_write, remove_leftovers
from thalweg.serialization import load, save


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.safetensors"


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file(
    path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    save(path, epoch=1)

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(OSError, match="No space left"):
            save(path, epoch=2)
    assert load(path) == {"epoch": 1}
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_killed_write_leaves_the_old_file_and_a_leftover_to_remove(path: Path, call: str) -> None:
    save(path, epoch=1)
    pid = os.fork()
    if pid == 0:  # dies as a killed process does: nothing is unwound
        setattr(os, call, lambda *_: os._exit(0))
        save(path, epoch=2)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    assert load(path) == {"epoch": 1}
    assert len(list(path.parent.iterdir())) == 2
    remove_leftovers(path.parent)
    assert list(path.parent.iterdir()) == [path]


def test_data_is_on_disk_before_the_name_changes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def record_fsync(descriptor: int) -> None:
        kind = "directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        calls.append(f"fsync {kind}")
        fsync(descriptor)

    def record_replace(source: Any, target: Any) -> None:
        calls.append("replace")
        assert Path(source).parent == Path(target).parent
        replace(source, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_replace)
    with atomic_write(path) as file:
        file.write(b"content")
    assert calls == ["fsync file", "replace", "fsync directory"]


@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_mode_follows_the_umask(path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        save(path, epoch=1)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == mode


MEMORY_PROGRAM = """
import resource, sys
import numpy as np
from thalweg.serialization import load
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
load(sys.argv[2])  # everything is imported and warm
before = peak()
load(sys.argv[1])
print(peak() - before)
"""


def test_loading_needs_no_more_memory_than_the_file(tmp_path: Path) -> None:
    import subprocess
    import sys

    big, small = tmp_path / "big.safetensors", tmp_path / "small.safetensors"
    save(big, **{f"w{k}": np.ones(1 << 21) for k in range(6)})
    save(small, w=np.ones(1))
    command = [sys.executable, "-c", MEMORY_PROGRAM, str(big), str(small)]
    used = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert used <= big.stat().st_size + (16 << 20)
