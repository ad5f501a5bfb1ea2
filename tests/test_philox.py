"""Masks of `_core.dropout`: published Philox vectors, and no dependence on how the work was cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference.philox import Words, philox
from thalweg import _core

Array = npt.NDArray[Any]

# Random123's kat_vectors: counter, key, output of philox4x32-10.
KNOWN: list[tuple[Words, tuple[int, int], Words]] = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    (
        (0xFFFFFFFF,) * 4,
        (0xFFFFFFFF, 0xFFFFFFFF),
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_the_reference_has_the_published_values(
    counter: Words, key: tuple[int, int], words: Words
) -> None:
    assert philox(counter, key) == words


words32, words64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)


@given(words64, words32, words32, st.integers(0, 2**32 - 4), st.floats(0, 0.99), st.integers(1, 30))
def test_masks_are_those_of_the_reference(
    seed: int, step: int, module: int, offset: int, p: float, elements: int
) -> None:
    """Element 4 b + w of sample s: word w of the counter (b, s, module, step)."""
    key = seed & 0xFFFFFFFF, seed >> 32
    threshold = int(p * 2**32)
    mask = [
        philox((i // 4, offset + s, module, step), key)[i % 4] >= threshold
        for s in range(3)
        for i in range(elements)
    ]
    x = np.random.default_rng(0).standard_normal((3, elements))
    expected = np.where(np.array(mask).reshape(3, elements), x * (1 / (1 - p)), 0)
    place = {"seed": seed, "step": step, "module": module, "sample_offset": offset}
    np.testing.assert_array_equal(_core.dropout(x, p, **place), expected)


def test_every_bit_of_a_word_takes_part() -> None:
    """The threshold at which an element falls is its word: found by halving, all 32 bits of it."""
    low, high = 0, 2**32
    while high - low > 1:
        middle = (low + high) // 2
        kept = _core.dropout(np.ones((1, 4)), middle / 2**32, seed=0)[0, 1] != 0
        low, high = (middle, high) if kept else (low, middle)
    assert low == 0xE169C58D


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 100_003), (517, 31), (9, 3, 5, 7), (5000,), (3, 0), (0, 5)])
def test_masks_do_not_depend_on_isa_threads_or_layout(shape: tuple[int, ...], dtype: type) -> None:
    x = np.random.default_rng(1).standard_normal(shape).astype(dtype)
    expected = _core.dropout(x, 0.3, seed=7)
    assert expected.shape == shape and expected.dtype == dtype
    for isa in _core.available_isas():
        _core.use_isa(isa)
        for threads in (1, 3):
            _core.set_num_threads(threads)
            np.testing.assert_array_equal(_core.dropout(x, 0.3, seed=7), expected)
    np.testing.assert_array_equal(_core.dropout(np.asfortranarray(x), 0.3, seed=7), expected)
    reversed_rows = x[::-1].copy()[::-1]
    np.testing.assert_array_equal(_core.dropout(reversed_rows, 0.3, seed=7), expected)


@given(st.integers(1, 29), st.sampled_from([(5,), (64,), (3, 7), ()]))
def test_shards_of_a_batch_have_the_masks_of_the_whole(cut: int, sample: tuple[int, ...]) -> None:
    x = np.ones((30, *sample), np.float32)
    whole = _core.dropout(x, 0.5, seed=3, step=4, module=5)
    shards = [
        _core.dropout(part, 0.5, seed=3, step=4, module=5, sample_offset=start)
        for part, start in ((x[:cut], 0), (x[cut:], cut))
    ]
    np.testing.assert_array_equal(np.concatenate(shards), whole)


def test_the_share_of_dropped_elements_is_p() -> None:
    for p in (0.0, 0.1, 0.5, 0.9):
        dropped = np.mean(_core.dropout(np.ones((1000, 1000), np.float32), p, seed=2) == 0)
        assert abs(dropped - p) <= 4 * np.sqrt(p * (1 - p) / 1e6)


X = np.ones((4, 3))
ERRORS: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: _core.dropout(X, 1.0, seed=0), ValueError, r"p must be in \[0, 1\), got 1"),
    (lambda: _core.dropout(X, -0.1, seed=0), ValueError, r"p must be in \[0, 1\)"),
    (lambda: _core.dropout(X, np.nan, seed=0), ValueError, r"p must be in \[0, 1\), got nan"),
    (lambda: _core.dropout(X, 0.5, seed=-1), ValueError, "seed must be between 0 and"),
    (lambda: _core.dropout(X, 0.5, seed=2**64), ValueError, "seed must be between 0 and"),
    (lambda: _core.dropout(X, 0.5, seed=1.5), TypeError, "seed must be an int, got float"),
    (lambda: _core.dropout(X, 0.5, seed=True), TypeError, "seed must be an int, got bool"),
    (lambda: _core.dropout(X, 0.5, seed=0, step=2**32), ValueError, "step must be between 0 and"),
    (lambda: _core.dropout(X, 0.5, seed=0, module=-1), ValueError, "module must be between 0"),
    (
        lambda: _core.dropout(X, 0.5, seed=0, sample_offset=2**32 - 3),
        ValueError,
        r"sample_offset \+ samples must be at most",
    ),
    (lambda: _core.dropout(np.array(1.0), 0.5, seed=0), ValueError, "at least 1 dimension"),
    (lambda: _core.dropout(np.ones(3, int), 0.5, seed=0), TypeError, "x must be float32 or"),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS)
def test_errors_say_what_was_expected(
    call: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()
