"""Readers of the file formats that data sets come in.

A file is read whole and checked against what its own header promises. Whatever is wrong with its
content (truncated, corrupt, empty, another format) raises `DataError`, which names the file, what
was expected and what was found; a file that cannot be opened raises the usual `OSError`.

References: IDX, LeCun, Cortes & Burges, "The MNIST database of handwritten digits"; the binary
version of CIFAR-10, Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
"""

from __future__ import annotations

import gzip
import math
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..backend import Array

GZIP_MAGIC = b"\x1f\x8b"
ZIP_MAGIC = b"PK"
IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
CIFAR10_PIXELS = (3, 32, 32)
CIFAR10_RECORD_BYTES = 1 + math.prod(CIFAR10_PIXELS)


class DataError(ValueError):
    """A data file or data set whose content is not what it has to be."""


def read_idx(path: str | Path) -> Array:
    """The array of an IDX file, plain or gzip (told apart by content, not by name).

    The format is two zero bytes, one byte for the element type, one for the number of axes, each
    axis' length as a big-endian uint32, then the elements in C order, big-endian.

    Returns: an array in native byte order with the shape that the header states.
    Errors: DataError where magic number, type or length are wrong; FileNotFoundError.
    """
    path = Path(path)
    content = _read_bytes(path)
    if len(content) < 4:
        raise DataError(f"{path}: expected an IDX header of at least 4 bytes, found {len(content)}")
    zeros, code, axes = content[:2], content[2], content[3]
    if zeros != b"\0\0" or code not in IDX_TYPES:
        raise DataError(
            f"{path}: expected an IDX magic number (00 00 type axes with a type of 08, 09, 0b, "
            f"0c, 0d, 0e), found {content[:4].hex(' ')}"
        )
    start = 4 + 4 * axes
    if len(content) < start:
        raise DataError(
            f"{path}: expected {axes} axis lengths up to byte {start}, found {len(content)} bytes"
        )
    shape = tuple(int(n) for n in np.frombuffer(content, ">u4", axes, 4))
    dtype = np.dtype(IDX_TYPES[code])
    expected = start + math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        raise DataError(
            f"{path}: expected {expected} bytes for shape {shape} of {dtype.newbyteorder('=')}, "
            f"found {len(content)}"
        )
    elements = np.frombuffer(content, dtype, offset=start).reshape(shape)
    return elements.astype(dtype.newbyteorder("="))


def read_cifar10(paths: Sequence[str | Path]) -> tuple[Array, Array]:
    """Images (N, 3, 32, 32) uint8 and labels (N,) int64 of CIFAR-10 batch files, in order.

    A record is one label byte and 3072 pixel bytes (planes R, G, B, each row-major).

    Errors: DataError for an empty file, a torn record or a label above 9; FileNotFoundError.
    """
    images, labels = [], []
    for path in map(Path, paths):
        content = _read_bytes(path)
        records, rest = divmod(len(content), CIFAR10_RECORD_BYTES)
        if records == 0 or rest:
            raise DataError(
                f"{path}: expected one or more records of {CIFAR10_RECORD_BYTES} bytes, found "
                f"{len(content)} bytes ({records} records and {rest} bytes)"
            )
        table = np.frombuffer(content, np.uint8).reshape(records, CIFAR10_RECORD_BYTES)
        check_labels(table[:, 0], 10, str(path))
        images.append(table[:, 1:].reshape(records, *CIFAR10_PIXELS))
        labels.append(table[:, 0].astype(np.int64))
    return np.concatenate(images), np.concatenate(labels)


def read_npz(path: str | Path) -> dict[str, Array]:
    """All arrays of an `.npz` file by name; pickled objects are refused.

    Errors: DataError for anything but a whole archive of plain numeric arrays; FileNotFoundError.
    """
    path = Path(path)
    # Our own file object: numpy.load leaves the one that it opens for a damaged archive open.
    with path.open("rb") as file:
        if file.read(len(ZIP_MAGIC)) != ZIP_MAGIC:
            raise DataError(f"{path}: expected an .npz archive, found another format")
        file.seek(0)
        try:
            archive = np.load(file, allow_pickle=False)
            arrays = {name: archive[name] for name in archive.files}
        except (ValueError, EOFError, OSError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(
                f"{path}: expected an .npz archive of numeric arrays, found: {error}"
            ) from error
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf":
            raise DataError(
                f"{path}: expected numeric arrays, found '{name}' with dtype {array.dtype}"
            )
    return arrays


def check_labels(labels: Array, classes: int, source: str) -> None:
    """Raise DataError naming the first label outside 0 … classes-1."""
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        first = int(wrong.argmax())
        raise DataError(
            f"{source}: expected labels in 0 … {classes - 1}, found {labels[first]} "
            f"at sample {first}"
        )


def _read_bytes(path: Path) -> bytes:
    content = path.read_bytes()
    if not content.startswith(GZIP_MAGIC):
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path}: expected a whole gzip file, found: {error}") from error
