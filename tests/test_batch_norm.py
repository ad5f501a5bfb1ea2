"""Running statistics, refused batches, and statistics merged across ranks."""

from __future__ import annotations

import copy
import itertools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import thalweg as tw
from thalweg import nn
from thalweg.functional.normalisation import merge_statistics


def test_running_statistics_average_exponentially_or_cumulatively() -> None:
    batches = np.random.default_rng(0).standard_normal((3, 5, 2))
    norm, mean = nn.BatchNorm1d(2, momentum=0.25).double(), np.zeros(2)
    even = nn.BatchNorm1d(2, momentum=None).double()
    for x in batches:
        norm(x)
        even(x)
        mean = 0.75 * mean + 0.25 * x.mean(0)
    np.testing.assert_allclose(norm.running_mean, mean, rtol=1e-13)
    np.testing.assert_allclose(even.running_mean, batches.mean((0, 1)), rtol=1e-12)
    np.testing.assert_allclose(even.running_var, batches.var(1, ddof=1).mean(0), rtol=1e-12)
    assert norm.num_batches_tracked == even.num_batches_tracked == 3
    assert norm.num_batches_tracked.dtype == np.int64


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones((1, 3), np.float32), "more than (1|one) (value|element)"),
        (np.ones((4, 2), np.float32), "3"),
        (np.ones((4, 3, 2, 2), np.float32), "2 or 3 axes"),
        (np.ones((4, 3)), "float32|float64"),
    ],
)
def test_a_refused_batch_leaves_the_statistics_unchanged(x: np.ndarray, message: str) -> None:
    norm = nn.BatchNorm1d(3)
    before = copy.deepcopy(norm.state_dict())
    with pytest.raises((ValueError, TypeError), match=message):
        norm(tw.Tensor(x))
    for name, array in norm.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_evaluation_takes_one_sample_and_writes_nothing() -> None:
    norm = nn.BatchNorm1d(3).eval()
    before = copy.deepcopy(norm.state_dict())
    norm(tw.ones(1, 3))
    for name, array in norm.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


class Ranks:
    """Communicators of `size` threads; what every rank gives is there once all have given it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.barrier = threading.Barrier(size)
        self.given: list[Any] = [None] * size

    def run(self, work: Callable[[Any], Any]) -> list[Any]:
        results: list[Any] = [None] * self.size

        def call(rank: int) -> None:
            results[rank] = work(Rank(self, rank))

        threads = [threading.Thread(target=call, args=(rank,)) for rank in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results


class Rank:
    def __init__(self, ranks: Ranks, rank: int) -> None:
        self.ranks, self.rank, self.size = ranks, rank, ranks.size

    def allgather(self, value: Any) -> list[Any]:
        self.ranks.given[self.rank] = value
        self.ranks.barrier.wait(20)
        values = list(self.ranks.given)
        self.ranks.barrier.wait(20)
        return values

    def allreduce(self, array: np.ndarray, op: str = "sum") -> None:
        array[...] = np.sum(self.allgather(array.copy()), axis=0)


@pytest.mark.parametrize("cuts", [[0, 3, 7], [0, 1, 4, 7], [0, 0, 7]])
def test_sync_batch_norm_on_shares_equals_batch_norm_on_the_batch(cuts: list[int]) -> None:
    draw = np.random.default_rng(3)
    x, dy = draw.standard_normal((2, 7, 4)) + 5
    shares = [slice(a, b) for a, b in itertools.pairwise(cuts)]

    def step(module: nn.Module, part: slice) -> tuple[Any, ...]:
        value = tw.tensor(x[part], requires_grad=True)
        y = module(value)
        y.backward(dy[part])
        return y.data, value.grad.data, module

    whole = step(nn.BatchNorm1d(4).double(), slice(0, 7))

    def work(rank: Any) -> tuple[Any, ...]:
        model = nn.SyncBatchNorm.convert(nn.Sequential(nn.BatchNorm1d(4)).double(), rank)
        return step(model, shares[rank.rank])

    parts = Ranks(len(shares)).run(work)
    for i in (0, 1):
        merged = np.concatenate([part[i] for part in parts])
        np.testing.assert_allclose(merged, whole[i], rtol=1e-10, atol=1e-12)
    for name, array in whole[2].named_buffers():
        for part in parts:
            np.testing.assert_allclose(part[2].state_dict()[f"0.{name}"], array, rtol=1e-12)
    for key in ("weight", "bias"):
        total = sum(getattr(part[2][0], key).grad.data for part in parts)
        np.testing.assert_allclose(total, getattr(whole[2], key).grad.data, rtol=1e-10)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=5))
def test_merged_statistics_are_those_of_the_union(sizes: list[int]) -> None:
    draw = np.random.default_rng(sum(sizes))
    parts = [draw.standard_normal((n, 2)) + 100 for n in sizes]
    union = np.concatenate(parts)
    given = [
        (len(p), p.mean(0), ((p - p.mean(0)) ** 2).sum(0))
        if len(p)
        else (0, np.zeros(2), np.zeros(2))
        for p in parts
    ]
    n, mean, m2 = merge_statistics(given)
    assert n == len(union)
    if n:
        np.testing.assert_allclose(mean, union.mean(0), rtol=1e-13)
        np.testing.assert_allclose(m2, ((union - union.mean(0)) ** 2).sum(0), rtol=1e-9, atol=1e-20)


def test_too_few_samples_on_all_ranks_together_are_refused_on_every_rank() -> None:
    def work(rank: Any) -> Any:
        norm = nn.BatchNorm1d(2, comm=rank)
        with pytest.raises(ValueError, match="more than 1 element a channel in training, got 1"):
            norm(tw.ones(1 if rank.rank == 1 else 0, 2))
        return norm.state_dict()

    for state in Ranks(2).run(work):
        np.testing.assert_array_equal(state["running_mean"], [0, 0])
        assert state["num_batches_tracked"] == 0
