"""Named data sets and the user's own files, each as `Splits` of training, validation and test.

The split is drawn from a seed. Samples are flat vectors unless `flatten=False`, and standardised
with the training set's statistics unless `standardise=False`.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..backend import Array, check_float
from .arrays import ArrayDataset, Splits, split_off
from .formats import DataError, read_cifar10, read_idx, read_npz
from .transforms import standardise as standardise_splits

VALIDATION_KEYS = ("validation", "val", "valid")


def digits(
    *,
    validation: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
    standardise: bool = True,
    flatten: bool = True,
    dtype: npt.DTypeLike = np.float32,
) -> Splits:
    """The 1797 handwritten digits, 8 x 8 pixels, that scikit-learn carries.

    Args:
        validation, test: shares of all samples that are set aside, in [0, 1); test above 0.

    Returns: x (N, 64), or (N, 1, 8, 8) unflattened, in [0, 1] before standardising; y (N,) int64.
    Errors: ModuleNotFoundError that names the extra where scikit-learn is missing.

    Reference: Alpaydin & Kaynak, "Cascading classifiers", 1998 (UCI repository).
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "tw.data.digits() needs scikit-learn: pip install 'thalweg[data]'", name=error.name
        ) from error
    images, labels = load_digits(return_X_y=True)
    x = (images / 16).reshape(-1, 1, 8, 8)
    whole = _dataset(x, labels, flatten, dtype, classes=10)
    splits = _cut(whole, validation, test, seed)
    return standardise_splits(splits, None) if standardise else splits


def mnist(
    path: str | Path,
    *,
    validation: float = 1 / 6,
    seed: int = 0,
    standardise: bool = True,
    flatten: bool = True,
    dtype: npt.DTypeLike = np.float32,
) -> Splits:
    """MNIST from a folder with its four IDX files, plain or `.gz`.

    Args:
        path: folder of train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-…
        validation: share of the 60 000 training samples that is set aside, 0 for none.

    Returns: x (N, 784), or (N, 1, 28, 28) unflattened, in [0, 1] before standardising; y int64.
    Errors: FileNotFoundError; DataError for a file that is no whole IDX file, counts of images
        and labels that differ, or labels above 9.

    Reference: LeCun, Bottou, Bengio & Haffner, "Gradient-based learning applied to document
    recognition", 1998.
    """
    whole = _mnist_part(Path(path), "train", flatten, dtype)
    train, validation_set = split_off(whole, validation, seed)
    splits = Splits(train, validation_set, _mnist_part(Path(path), "t10k", flatten, dtype))
    return standardise_splits(splits, None) if standardise else splits


def cifar10(
    path: str | Path,
    *,
    validation: float = 0.1,
    seed: int = 0,
    standardise: bool = True,
    flatten: bool = True,
    dtype: npt.DTypeLike = np.float32,
) -> Splits:
    """CIFAR-10 from the folder of its binary version (data_batch_*.bin, test_batch.bin).

    Args:
        validation: share of the training samples that is set aside, 0 for none.

    Returns: x (N, 3072), or (N, 3, 32, 32) unflattened, in [0, 1] before standardising, which is
        per channel; y (N,) int64.
    Errors: FileNotFoundError; DataError for torn or empty files or labels above 9.

    Reference: Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
    """
    folder = Path(path)
    batches = sorted(folder.glob("data_batch_*.bin"))
    if not batches:
        raise FileNotFoundError(f"{folder}: expected data_batch_1.bin and on, found none")
    train_images, train_labels = read_cifar10(batches)
    test_images, test_labels = read_cifar10([folder / "test_batch.bin"])
    whole = _dataset(train_images, train_labels, False, dtype, classes=10, scale=255)
    test = _dataset(test_images, test_labels, False, dtype, classes=10, scale=255)
    splits = Splits(*split_off(whole, validation, seed), test)
    if standardise:
        splits = standardise_splits(splits, (0, 2, 3))
    return _flattened(splits) if flatten else splits


def npz(
    path: str | Path,
    *,
    validation: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
    standardise: bool = True,
    flatten: bool = True,
    dtype: npt.DTypeLike = np.float32,
) -> Splits:
    """Your own arrays from an `.npz` file.

    Either `x` and `y`, which are cut into the three sets, or `x_train`, `y_train`, `x_test`,
    `y_test` and, optionally, `x_validation`, `y_validation` (also `val`, `valid`; otherwise
    `validation` is cut from the training set).

    Args:
        validation, test: shares that are set aside where the file does not say.

    Returns: x (N, features), or as stored unflattened, standardised per feature; y as stored,
        integers as int64 labels, other numbers as `dtype`.
    Errors: FileNotFoundError; DataError for missing arrays, values that are not finite, labels
        below 0 or unknown to the training set, an empty set.
    """
    arrays = read_npz(path)

    def pair(suffix: str, classes: int | None = None) -> ArrayDataset:
        for name in (f"x{suffix}", f"y{suffix}"):
            if name not in arrays:
                found = ", ".join(sorted(arrays)) or "none"
                raise DataError(
                    f"{path}: expected arrays x and y, or x_train, y_train, x_test, y_test; "
                    f"'{name}' is missing, found {found}"
                )
        x, y = arrays[f"x{suffix}"], arrays[f"y{suffix}"]
        _check_finite(path, f"x{suffix}", x)
        _check_finite(path, f"y{suffix}", y)
        try:
            return _dataset(x, y, flatten, dtype, classes=classes)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error

    if "x_train" not in arrays:
        splits = _cut(pair(""), validation, test, seed)
    else:
        train = pair("_train")
        suffix = next((f"_{key}" for key in VALIDATION_KEYS if f"x_{key}" in arrays), None)
        held_out = pair("_test", train.classes)
        if suffix is None:
            splits = Splits(*split_off(train, validation, seed), held_out)
        else:
            splits = Splits(train, pair(suffix, train.classes), held_out)
    return standardise_splits(splits, 0) if standardise else splits


def _cut(whole: ArrayDataset, validation: float, test: float, seed: int) -> Splits:
    rest, test_set = split_off(whole, test, seed)
    if test_set is None:
        raise ValueError(f"test must be in (0, 1), got {test}")
    if not 0 <= validation < 1 - test:
        raise ValueError(f"validation must be in [0, 1 - test), got {validation} with test {test}")
    return Splits(*split_off(rest, validation / (1 - test), seed), test_set)


def _dataset(
    x: Array,
    y: Array,
    flatten: bool,
    dtype: npt.DTypeLike,
    *,
    classes: int | None = None,
    scale: float = 1,
) -> ArrayDataset:
    samples = x.astype(check_float(dtype, "dtype"))
    if scale != 1:
        samples /= scale
    targets = y.astype(np.int64 if y.dtype.kind in "biu" else dtype)
    dataset = ArrayDataset(samples, targets, classes=classes)
    return _flat(dataset) if flatten else dataset


def _flat(dataset: ArrayDataset) -> ArrayDataset:
    features = math.prod(dataset.x.shape[1:])
    return ArrayDataset(
        dataset.x.reshape(len(dataset), features), dataset.y, classes=dataset.classes
    )


def _flattened(splits: Splits) -> Splits:
    validation = None if splits.validation is None else _flat(splits.validation)
    return Splits(_flat(splits.train), validation, _flat(splits.test))


def _mnist_part(folder: Path, part: str, flatten: bool, dtype: npt.DTypeLike) -> ArrayDataset:
    image_path = _idx_path(folder, f"{part}-images-idx3-ubyte")
    label_path = _idx_path(folder, f"{part}-labels-idx1-ubyte")
    images, labels = read_idx(image_path), read_idx(label_path)
    if images.ndim != 3:
        raise DataError(f"{image_path}: expected images (N, H, W), found shape {images.shape}")
    if labels.ndim != 1:
        raise DataError(f"{label_path}: expected labels (N,), found shape {labels.shape}")
    try:
        return _dataset(images[:, None], labels, flatten, dtype, classes=10, scale=255)
    except DataError as error:
        raise DataError(f"{image_path} with {label_path}: {error}") from error


def _idx_path(folder: Path, name: str) -> Path:
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(f"{folder}: expected {name} or {name}.gz, found neither")


def _check_finite(path: str | Path, name: str, values: Array) -> None:
    if not np.isfinite(values).all():
        raise DataError(f"{path}: expected finite numbers, found NaN or infinity in '{name}'")
