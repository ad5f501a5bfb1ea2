"""The dynamic 8-bit map of Dettmers et al. 2022, arXiv:2110.02861, as its authors build it."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]
BLOCK = 256


def dynamic_map(signed: bool) -> Array:
    """The 256 values, sorted: bitsandbytes' create_dynamic_map with seven exponent bits."""
    values = [0.0, 1.0]
    for decade in range(7):
        edges = np.linspace(0.1, 1, 2 ** (decade if signed else decade + 1) + 1)
        means = 10.0 ** (decade - 6) * (edges[:-1] + edges[1:]) / 2
        values += [*means, *(-means if signed else ())]
    return np.sort(values)


def spacing(x: Array, signed: bool) -> Array:
    """How far a fraction |x| <= 1 may lie from its code's value: half the gap that holds it, and a
    nonnegative x, which must not become 0, the whole of the first gap."""
    values = dynamic_map(signed)
    right = np.clip(np.searchsorted(values, x), 1, 255)
    gap = values[right] - values[right - 1]
    return np.where((right == 1) & (not signed), gap, gap / 2)


def blocks(x: Array) -> list[slice]:
    return [slice(i, min(i + BLOCK, x.size)) for i in range(0, x.size, BLOCK)]
