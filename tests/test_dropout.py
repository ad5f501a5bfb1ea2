"""A mask is a function of seed, step, place and sample, and of nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import thalweg as tw
from thalweg import nn


@pytest.fixture
def generator() -> Iterator[tw.Generator]:
    yield tw.Generator(5)


def test_dropout_keeps_the_mean_and_the_gradient_has_the_same_mask(generator: Any) -> None:
    layer = nn.Dropout(0.25, generator=generator)
    x = tw.ones(200, 50, requires_grad=True)
    y = layer(x)
    assert set(np.unique(y.data)) == {0, np.float32(1 / 0.75)}
    assert abs(float(y.data.mean()) - 1) < 5 * math.sqrt(1 / 3 / x.numel())
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, y.data)
    assert layer.eval()(x) is x


@given(st.integers(1, 7))
def test_a_mask_does_not_depend_on_how_the_batch_is_cut(cut: int) -> None:
    generator = tw.Generator(9)
    layer = nn.Dropout(0.5, generator=generator)
    x = tw.ones(8, 6)
    whole = layer(x).data
    first = layer(x[:cut]).data
    generator.sample_offset = cut
    np.testing.assert_array_equal(np.concatenate([first, layer(x[cut:]).data]), whole)


def test_masks_differ_by_step_seed_and_place_and_repeat_otherwise(generator: Any) -> None:
    model = nn.Sequential(nn.Dropout(generator=generator), nn.Dropout(generator=generator))
    x = tw.ones(20, 20)
    model(x)
    masks = [model[0](x).data, model[1](x).data]
    generator.advance()
    masks.append(model[0](x).data)
    masks.append(nn.Dropout(generator=tw.Generator(6))(x).data)
    assert all(not np.array_equal(masks[i], masks[j]) for i in range(4) for j in range(i))
    twin = nn.Sequential(nn.Dropout(generator=generator), nn.Dropout(generator=generator))
    np.testing.assert_array_equal(model(x), twin(x))
