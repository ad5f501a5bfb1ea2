"""Initial values have the spread that their names promise."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import thalweg as tw
from thalweg import nn

init = nn.init
SPREADS: dict[str, tuple[Callable[[Any], Any], float]] = {
    "normal": (lambda w: init.normal_(w, 0, 0.5), 0.5),
    "uniform": (lambda w: init.uniform_(w, -3, 3), math.sqrt(3)),
    "xavier_uniform": (lambda w: init.xavier_uniform_(w, 2), 2 * math.sqrt(2 / 500)),
    "xavier_normal": (init.xavier_normal_, math.sqrt(2 / 500)),
    "kaiming_uniform": (init.kaiming_uniform_, math.sqrt(2 / 200)),
    "kaiming_uniform linear": (
        lambda w: init.kaiming_uniform_(w, nonlinearity="linear", mode="fan_out"),
        math.sqrt(1 / 300),
    ),
    "kaiming_normal": (
        lambda w: init.kaiming_normal_(w, nonlinearity="relu"),
        math.sqrt(2 / 200),
    ),
    "kaiming_normal leaky": (lambda w: init.kaiming_normal_(w, a=1), math.sqrt(1 / 200)),
    "lecun_normal": (init.lecun_normal_, math.sqrt(1 / 200)),
    "lecun_uniform": (init.lecun_uniform_, math.sqrt(1 / 200)),
    "orthogonal": (lambda w: init.orthogonal_(w, 3), 3 * math.sqrt(1 / 300)),
    "Linear": (lambda w: w.copy_(nn.Linear(200, 300).weight.data), math.sqrt(1 / 600)),
}


@pytest.mark.parametrize("name", list(SPREADS))
def test_initial_values_have_the_stated_spread(name: str) -> None:
    fill, std = SPREADS[name]
    tw.manual_seed(1)
    weight = nn.Parameter(np.empty((300, 200), np.float32))
    with tw.no_grad():
        fill(weight)
    # Relative standard error of a standard deviation of n values: at most 1/sqrt(2n), here 0.3 %.
    assert abs(weight.data.mean()) < 5 * std / math.sqrt(weight.numel())
    np.testing.assert_allclose(weight.data.std(), std, rtol=0.015)


def test_initial_values_repeat_for_a_seed() -> None:
    tw.manual_seed(4)
    first = nn.Linear(5, 6).weight.data
    tw.manual_seed(4)
    np.testing.assert_array_equal(nn.Linear(5, 6).weight.data, first)
    generators = [tw.Generator(2), tw.Generator(2)]
    a, b = (nn.Linear(5, 6, generator=g) for g in generators)
    np.testing.assert_array_equal(a.bias.data, b.bias.data)


@pytest.mark.parametrize("shape", [(5, 8), (8, 5), (6, 2, 3)])
def test_orthogonal_rows_or_columns(shape: tuple[int, ...]) -> None:
    matrix = init.orthogonal_(tw.empty(shape, dtype=np.float64)).data.reshape(shape[0], -1)
    small = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(small, np.eye(len(small)), atol=1e-13)


def test_sparse_leaves_the_same_share_in_every_column() -> None:
    weight = init.sparse_(tw.empty(10, 7), 0.25)
    assert (np.count_nonzero(weight.data == 0, axis=0) == 3).all()


@pytest.mark.torch
@pytest.mark.parametrize("name", ["linear", "sigmoid", "tanh", "relu", "selu", "leaky_relu"])
def test_gains_are_torchs(name: str) -> None:
    torch = pytest.importorskip("torch")
    assert init.calculate_gain(name) == torch.nn.init.calculate_gain(name)
