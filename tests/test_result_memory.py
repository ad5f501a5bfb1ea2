"""Memory of large results: kept when they are freed, and handed out again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import thalweg as tw
from guard_pages import guarded_numpy
from thalweg import _core

LARGE = 1 << 16  # bytes from which on results are kept


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    tw.release_memory()
    yield
    tw.release_memory()


def result(size: int, value: float = 1.0) -> Any:
    """A result of `size` bytes."""
    return _core.add(np.full(size // 8, float(value)), np.float64(0))


@pytest.mark.unsanitized
@pytest.mark.parametrize("size", [LARGE, 3 << 20, 9 << 20])
def test_a_result_takes_the_memory_that_one_of_its_size_has_left(size: int) -> None:
    first = result(size)
    place = first.ctypes.data
    other = result(size)
    assert other.ctypes.data != place
    del first
    again = result(size)
    assert again.ctypes.data == place
    del other, again
    assert size <= tw.release_memory() / 2 < size + max(size // 8, 2 << 20)
    assert tw.release_memory() == 0


def test_small_results_and_those_of_others_are_not_kept() -> None:
    result(LARGE - 8)
    np.zeros(LARGE).copy()
    assert tw.release_memory() == 0


def test_memory_comes_from_where_numpy_was_told_to_take_it() -> None:
    with guarded_numpy(at_end=True):
        result(LARGE)
    assert tw.release_memory() == 0


@given(st.lists(st.integers(1, 40), max_size=12))
def test_no_more_is_held_than_results_have_taken_at_once(sizes: list[int]) -> None:
    tw.release_memory()
    for size in sizes:
        result(size * LARGE)
    assert tw.release_memory() <= max(sizes, default=0) * LARGE * 9 / 8


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=25))
def test_results_that_live_share_nothing(draws: list[tuple[int, int]]) -> None:
    alive: dict[int, tuple[Any, float]] = {}
    for i, (name, units) in enumerate(draws):
        alive.pop(name, None)
        if units:
            alive[name] = result(units * LARGE + 8, i), i
        for array, value in alive.values():
            assert (array == value).all()


def test_a_result_can_be_resized_and_outlive_what_is_kept() -> None:
    array = result(LARGE, 3.0)
    assert array.flags.owndata and array.base is None
    array.resize(2 * LARGE // 8, refcheck=False)
    assert (array[: LARGE // 8] == 3).all() and (array[LARGE // 8 :] == 0).all()
    tw.release_memory()
    assert (array[: LARGE // 8] == 3).all()
