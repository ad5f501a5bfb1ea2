"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file that takes the place of `path` when the block ends without an exception.

    Temporary file in the same directory, write, fsync, rename, fsync of the directory: after a
    crash at any point `path` is the old file or the new one, whole. The mode follows the umask.
    """
    path = Path(path)
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    # Not tempfile: it makes files that only their owner may read.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def remove_leftovers(directory: str | os.PathLike[str]) -> None:
    """Delete temporary files that killed writers left in a directory that nobody writes to."""
    for leftover in Path(directory).glob(".*.tmp"):
        leftover.unlink(missing_ok=True)
