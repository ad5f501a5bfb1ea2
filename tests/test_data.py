"""Data sets, transforms and loaders."""

from __future__ import annotations

import builtins
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.data import (
    ArrayDataset,
    DataError,
    DataLoader,
    Splits,
    Standardise,
    digits,
    split_off,
    standardise,
)

# --- data sets ------------------------------------------------------------------------------------
X, Y = np.zeros((10, 2)), np.arange(10) % 2
BAD_DATASETS: dict[str, tuple[Any, Any, int | None, str]] = {
    "empty": (np.zeros((0, 3)), np.zeros(0, int), None, "at least one sample"),
    "lengths": (np.zeros((2, 3)), np.zeros(3, int), None, "2 samples and 3 targets"),
    "no axis": (1.0, 2, None, "along axis 0"),
    "label too large": (np.zeros((2, 3)), [0, 5], 5, "labels in 0 … 4, found 5 at sample 1"),
    "negative label": (np.zeros((2, 3)), [0, -1], None, "found -1 at sample 1"),
    "classes of numbers": (np.zeros((2, 3)), [0.5, 1.0], 2, "one axis of integers"),
}


@pytest.mark.parametrize("x, y, classes, message", BAD_DATASETS.values(), ids=BAD_DATASETS)
def test_bad_datasets_are_refused(x: Any, y: Any, classes: int | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        ArrayDataset(x, y, classes=classes)


def test_samples_are_not_rounded_to_integers() -> None:
    pytest.importorskip("sklearn")
    with pytest.raises(TypeError, match="dtype must be float32 or float64, got int64"):
        digits(dtype=np.int64)


def test_digits_is_the_same_split_for_the_same_seed() -> None:
    pytest.importorskip("sklearn")
    first, again, other = digits(seed=1), digits(seed=1), digits(seed=2)
    assert first.validation is not None
    assert [len(part) for part in first if part] == [1258, 180, 359]
    np.testing.assert_array_equal(first.test.x, again.test.x)
    assert not np.array_equal(first.test.y, other.test.y)
    assert first.train.x.dtype == np.float32
    assert abs(float(first.train.x.mean())) < 1e-6 and abs(float(first.train.x.std()) - 1) < 1e-5


def test_without_scikit_learn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def refuse(name: str, *rest: Any, **options: Any) -> Any:
        if name.startswith("sklearn"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real_import(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'thalweg\[data\]'"):
        digits()


@given(st.integers(2, 60), st.floats(0, 0.99), st.integers(0, 9))
def test_split_off_partitions_the_samples(samples: int, share: float, seed: int) -> None:
    whole = ArrayDataset(np.arange(samples), np.zeros(samples))
    count = round(share * samples)
    if share > 0 and not 0 < count < samples:
        with pytest.raises(DataError, match="enough samples"):
            split_off(whole, share, seed)
        return
    rest, part = split_off(whole, share, seed)
    assert (0 if part is None else len(part)) == count
    together = np.concatenate([rest.x, [] if part is None else part.x])
    np.testing.assert_array_equal(np.sort(together), whole.x)


@pytest.mark.parametrize("share", [-0.1, 1.0, 1.5, float("nan")])
def test_shares_outside_the_unit_interval_are_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"share must be in \[0, 1\)"):
        split_off(ArrayDataset(X, Y), share)


# --- transforms -----------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, None, (0, 2)], ids=str)
def test_standardise_gives_zero_mean_and_unit_variance(axis: Any) -> None:
    x = np.random.default_rng(0).normal(3, 7, (50, 4, 6))
    y = Standardise(axis).fit(x)(x)
    np.testing.assert_allclose(y.mean(axis=axis), 0, atol=1e-12)
    np.testing.assert_allclose(y.std(axis=axis), 1, rtol=1e-12)


def test_standardise_is_fitted_on_the_training_set_alone() -> None:
    train, test = ArrayDataset([[0.0], [2.0]], [0, 1]), ArrayDataset([[101.0]], [0])
    scaled = standardise(Splits(train, None, test))
    np.testing.assert_array_equal(scaled.train.x, [[-1], [1]])
    np.testing.assert_array_equal(scaled.test.x, [[100]])
    assert scaled.validation is None


def test_a_constant_feature_is_only_centred() -> None:
    x = np.full((1000, 2), 0.1, np.float32)
    np.testing.assert_allclose(Standardise().fit(x)(x), 0, atol=1e-7)


def test_standardise_restores_from_its_state() -> None:
    fitted, fresh = Standardise(None).fit(X + Y[:, None]), Standardise()
    with pytest.raises(RuntimeError, match="call fit"):
        fresh(X)
    fresh.load_state_dict(fitted.state_dict())
    np.testing.assert_array_equal(fresh(X), fitted(X))


def test_standardise_needs_samples() -> None:
    with pytest.raises(DataError, match="at least one sample"):
        Standardise().fit(X[:0])


# --- loaders --------------------------------------------------------------------------------------


def numbered(samples: int) -> ArrayDataset:
    return ArrayDataset(np.arange(samples), np.zeros(samples))


@given(
    samples=st.integers(1, 50),
    batch_size=st.integers(1, 20),
    size=st.integers(1, 5),
    mode=st.sampled_from(["samples", "batches"]),
    epoch=st.integers(0, 3),
)
def test_ranks_together_see_the_batches_of_one_rank(
    samples: int, batch_size: int, size: int, mode: str, epoch: int
) -> None:
    def loader(rank: int, size: int) -> DataLoader:
        comm = SimpleNamespace(rank=rank, size=size)
        made = DataLoader(numbered(samples), batch_size, seed=3, mode=mode, comm=comm)
        made.set_epoch(epoch)
        return made

    alone = [x for x, _ in loader(0, 1)]
    np.testing.assert_array_equal(np.sort(np.concatenate(alone)), np.arange(samples))
    loaders = [loader(rank, size) for rank in range(size)]
    for whole, *shares in zip(alone, *loaders, strict=True):
        np.testing.assert_array_equal(np.concatenate([x for x, _ in shares]), whole)
        assert {each.global_count for each in loaders} == {len(whole)}
        counts = [len(x) for x, _ in shares]
        assert [each.sample_offset for each in loaders] == list(np.cumsum([0, *counts])[:-1])
        assert max(counts) - min(counts) <= 1


def test_epochs_differ_and_repeat() -> None:
    loader = DataLoader(numbered(100), 10, seed=1)
    first, second = (np.concatenate([x for x, _ in loader]) for _ in range(2))
    loader.set_epoch(0)
    again = np.concatenate([x for x, _ in loader])
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, again)


def test_fixed_batches_are_permuted_and_keep_their_samples() -> None:
    loader = DataLoader(numbered(30), 5, mode="batches", seed=2)
    batches = [x for x, _ in loader]
    assert {tuple(batch) for batch in batches} == {tuple(range(k, k + 5)) for k in range(0, 30, 5)}
    assert not np.array_equal(np.concatenate(batches), np.arange(30))


def test_without_shuffling_samples_come_in_order() -> None:
    loader = DataLoader(numbered(7), 3, shuffle=False)
    assert [x.tolist() for x, _ in loader] == [[0, 1, 2], [3, 4, 5], [6]]
    assert len(loader) == 3


def test_drop_last_leaves_out_the_rest() -> None:
    loader = DataLoader(numbered(7), 3, drop_last=True)
    assert [len(x) for x, _ in loader] == [3, 3] and len(loader) == 2


BAD_LOADERS: dict[str, tuple[dict[str, Any], str]] = {
    "batch_size": ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
    "seed": ({"batch_size": 1, "seed": -1}, "seed must not be negative, got -1"),
    "mode": ({"batch_size": 1, "mode": "sample"}, r"\['batches', 'samples'\], got 'sample'"),
    "drop_last": ({"batch_size": 8, "drop_last": True}, "leaves nothing of 7 samples"),
}


@pytest.mark.parametrize("options, message", BAD_LOADERS.values(), ids=BAD_LOADERS)
def test_bad_loader_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataLoader(numbered(7), **options)
