"""Files of data: IDX, MNIST, CIFAR-10 and .npz, whole and damaged."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.data import (
    DataError,
    cifar10,
    mnist,
    npz,
    read_cifar10,
    read_idx,
    read_npz,
)

CIFAR10_RECORD = 1 + 3 * 32 * 32

IDX_CODES = {"u1": 0x08, "i1": 0x09, ">i2": 0x0B, ">i4": 0x0C, ">f4": 0x0D, ">f8": 0x0E}


def idx(array: np.ndarray, code: str = "u1") -> bytes:
    lengths = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, IDX_CODES[code], array.ndim]) + lengths + array.astype(code).tobytes()


def write_mnist(folder: Path, *, pack: Callable[[bytes], bytes] = bytes, ending: str = "") -> None:
    for part, count in (("train", 12), ("t10k", 5)):
        images = np.arange(count * 6).reshape(count, 2, 3)
        for kind, array in (("images-idx3", images), ("labels-idx1", np.arange(count) % 10)):
            (folder / f"{part}-{kind}-ubyte{ending}").write_bytes(pack(idx(array)))


def write_cifar10(folder: Path) -> np.ndarray:
    records = np.random.default_rng(0).integers(0, 256, (8, CIFAR10_RECORD), dtype=np.uint8)
    records[:, 0] = np.arange(8)
    for k in (0, 1):
        (folder / f"data_batch_{k + 1}.bin").write_bytes(records[3 * k : 3 * k + 3].tobytes())
    (folder / "test_batch.bin").write_bytes(records[6:].tobytes())
    return records


@pytest.mark.parametrize("code", IDX_CODES)
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_idx_gives_back_what_was_written(
    tmp_path: Path, code: str, pack: Callable[[bytes], bytes]
) -> None:
    written = np.arange(24).reshape(2, 3, 4).astype(code)
    (tmp_path / "file").write_bytes(pack(idx(written, code)))
    read = read_idx(tmp_path / "file")
    assert read.dtype == written.dtype.newbyteorder("=")
    np.testing.assert_array_equal(read, written)


WHOLE_IDX = idx(np.arange(24).reshape(4, 3, 2))

BAD_IDX = {
    "empty": (b"", "at least 4 bytes, found 0"),
    "another magic number": (b"\x89PNG" + WHOLE_IDX[4:], "magic number"),
    "an unknown type": (b"\0\0\x0a" + WHOLE_IDX[3:], "magic number .* found 00 00 0a 03"),
    "a torn header": (WHOLE_IDX[:9], "expected 3 axis lengths"),
    "a missing byte": (WHOLE_IDX[:-1], r"expected 40 bytes for shape \(4, 3, 2\).* found 39"),
    "a byte too many": (WHOLE_IDX + b"\0", "expected 40 bytes .* found 41"),
    "absurd lengths": (b"\0\0\x08\x03" + b"\xff" * 12, "expected .* bytes for shape"),
    "a torn gzip": (gzip.compress(WHOLE_IDX)[:-9], "whole gzip file"),
    "a damaged gzip": (b"\x1f\x8b" + bytes(30), "whole gzip file"),
}


@pytest.mark.parametrize("content, message", BAD_IDX.values(), ids=BAD_IDX)
def test_bad_idx_is_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "train-images"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


@given(st.integers(0, len(WHOLE_IDX) - 1))
def test_every_truncation_of_idx_is_found(tmp_path_factory: Any, length: int) -> None:
    path = tmp_path_factory.mktemp("idx") / "file"
    path.write_bytes(WHOLE_IDX[:length])
    with pytest.raises(DataError, match="expected"):
        read_idx(path)


@pytest.mark.parametrize("pack, ending", [(bytes, ""), (gzip.compress, ".gz")])
def test_mnist_reads_plain_and_gzip(
    tmp_path: Path, pack: Callable[[bytes], bytes], ending: str
) -> None:
    write_mnist(tmp_path, pack=pack, ending=ending)
    splits = mnist(tmp_path, validation=0.25, standardise=False, flatten=False)
    assert splits.validation is not None
    assert [len(part) for part in splits if part] == [9, 3, 5]
    assert splits.test.x.shape == (5, 1, 2, 3) and splits.test.x.dtype == np.float32
    assert splits.test.classes == 10
    np.testing.assert_allclose(splits.test.x.ravel(), np.arange(30) / 255, rtol=1e-6)


def _labels(values: list[int]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "t10k-labels-idx1-ubyte").write_bytes(idx(np.array(values)))

    return write


BAD_MNIST = {
    "a label of 10": (_labels([0, 1, 10, 3, 4]), r"labels in 0 … 9, found 10 at sample 2"),
    "fewer labels": (_labels([0, 1]), "5 samples and 2 targets"),
    "labels as pictures": (_labels([[0], [1]]), r"labels \(N,\), found shape \(2, 1\)"),  # type: ignore[list-item]
}


@pytest.mark.parametrize("spoil, message", BAD_MNIST.values(), ids=BAD_MNIST)
def test_bad_mnist_is_refused_by_name(
    tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    write_mnist(tmp_path)
    spoil(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        mnist(tmp_path)
    assert "t10k-labels" in str(caught.value)


def test_a_missing_mnist_file_is_named(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match="train-labels-idx1-ubyte or"):
        mnist(tmp_path)


def test_cifar10_reads_planes_in_order(tmp_path: Path) -> None:
    records = write_cifar10(tmp_path)
    splits = cifar10(tmp_path, validation=0, standardise=False, flatten=False)
    assert splits.validation is None
    np.testing.assert_array_equal(splits.train.y, records[:6, 0])
    np.testing.assert_allclose(
        splits.train.x.reshape(6, -1), records[:6, 1:].astype(np.float32) / 255, rtol=1e-6
    )
    assert cifar10(tmp_path, validation=0).train.x.shape == (6, 3072)


BAD_CIFAR10 = {
    "empty": (b"", "one or more records of 3073 bytes, found 0"),
    "torn": (bytes(CIFAR10_RECORD - 1), "found 3072 bytes"),
    "a byte too many": (bytes(CIFAR10_RECORD + 1), "1 records and 1 bytes"),
    "a label of 255": (b"\xff" + bytes(3072), "labels in 0 … 9, found 255 at sample 0"),
}


@pytest.mark.parametrize("content, message", BAD_CIFAR10.values(), ids=BAD_CIFAR10)
def test_bad_cifar10_is_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "data_batch_1.bin"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_cifar10([path])
    assert str(path) in str(caught.value)


def test_a_folder_without_cifar10_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"data_batch_1.bin"):
        cifar10(tmp_path)


def test_npz_cuts_x_and_y_into_three_sets(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(40.0).reshape(20, 2), y=np.arange(20) % 3)
    splits = npz(tmp_path / "a.npz", validation=0.2, test=0.3, standardise=False)
    assert [len(part) for part in splits if part] == [10, 4, 6]
    rows = np.concatenate([part.x for part in splits if part])
    np.testing.assert_array_equal(np.sort(rows[:, 0]), np.arange(0, 40, 2))


def test_npz_keeps_sets_that_the_file_names(tmp_path: Path) -> None:
    arrays = {}
    for part, count in (("train", 6), ("val", 3), ("test", 2)):
        arrays[f"x_{part}"] = np.full((count, 2, 2), count, np.uint8)
        arrays[f"y_{part}"] = np.linspace(0, 1, count)
    np.savez(tmp_path / "a.npz", **arrays)
    splits = npz(tmp_path / "a.npz", standardise=False)
    assert [len(part) for part in splits if part] == [6, 3, 2]
    assert splits.train.x.shape == (6, 4) and splits.train.classes is None
    assert splits.train.y.dtype == np.float32


X, Y = np.zeros((10, 2)), np.arange(10) % 2

BAD_NPZ = {
    "no x": ({"y": Y}, "'x' is missing, found y"),
    "no y_test": ({"x_train": X, "y_train": Y, "x_test": X}, "'y_test' is missing"),
    "objects": ({"x": np.array([{}]), "y": Y}, "numeric arrays"),
    "text": ({"x": np.array(["a"] * 10), "y": Y}, "'x' with dtype <U1"),
    "a NaN": ({"x": np.where(np.eye(10, 2), np.nan, 0), "y": Y}, "NaN or infinity in 'x'"),
    "other lengths": ({"x": X, "y": Y[1:]}, "10 samples and 9 targets"),
    "no samples": ({"x": X[:0], "y": Y[:0]}, "at least one sample, found none"),
    "a negative label": ({"x": X, "y": Y - 1}, "found -1 at sample 0"),
    "an unknown test label": (
        {"x_train": X, "y_train": Y, "x_test": X, "y_test": Y + 1},
        "labels in 0 … 1, found 2",
    ),
}


@pytest.mark.parametrize("arrays, message", BAD_NPZ.values(), ids=BAD_NPZ)
def test_bad_npz_is_refused_by_name(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=message) as caught:
        npz(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("keep", [0, 1, 30, 100, -30, -1])
def test_a_truncated_npz_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=X, y=Y)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"a.npz: expected an .npz archive"):
        read_npz(path)


def test_a_flipped_bit_in_an_npz_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=np.ones(100))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="CRC"):
        read_npz(path)


def test_a_missing_npz_and_a_bare_array_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none.npz"):
        npz(tmp_path / "none.npz")
    np.save(tmp_path / "a.npy", X)
    with pytest.raises(DataError, match="another format"):
        npz(tmp_path / "a.npy")
