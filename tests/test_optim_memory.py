"""Where the arrays of an optimizer lie."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from thalweg.optim import Adam
from thalweg.optim.memory import allocate


@pytest.mark.parametrize("options", [{}, {"amsgrad": True, "ema_decay": 0.9}], ids=str)
def test_large_states_keep_off_the_parameters_page_offset(options: Any) -> None:
    """Streams a few cache lines apart modulo 4096 hold each other up: see optim/memory.py."""
    params = [np.zeros(20_000, np.float32), np.zeros(70_000, np.float64)[3:]]
    optimizer = Adam(params, **options)
    optimizer.step([np.ones_like(p) for p in params])
    for index, state in optimizer.state_dict()["state"].items():
        arrays = [params[index], *(a for a in state.values() if isinstance(a, np.ndarray))]
        offsets = [array.ctypes.data % 4096 for array in arrays]
        gaps = [(a - b) % 4096 for a, b in itertools.permutations(offsets, 2)]
        assert len(gaps) >= 6 and min(gaps) >= 512, offsets


def test_arrays_are_zero_apart_and_start_on_cache_lines() -> None:
    layout = [((3,), np.dtype(np.float32)), ((0, 5), np.dtype(np.float32))]
    layout += [((40_000,), np.dtype(np.float64)), ((7, 3000), np.dtype(np.float32))]
    arrays = allocate(layout, [8, 16, 24, 4000])
    for array, (shape, dtype) in zip(arrays, layout, strict=True):
        assert (array.shape, array.dtype, array.ctypes.data % 64) == (shape, dtype, 0)
        assert not array.any()
    for a, b in itertools.combinations(arrays, 2):
        assert not np.shares_memory(a, b)
