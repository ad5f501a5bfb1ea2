"""Reductions over any axes: values, the documented tree, and bits that only the data decides."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference import norm as reference
from thalweg import _core

Array = np.ndarray

# Name -> the same over the last axis of a longdouble array, whose sums carry 11 more bits.
REDUCTIONS: dict[str, Callable[..., Any]] = {
    "sum": np.sum,
    "mean": np.mean,
    "max": np.max,
    "min": np.min,
    "sum_squares": lambda x, **options: np.sum(np.square(x), **options),
}
DTYPES = ["float32", "float64"]


def tolerance(dtype: str, n: int) -> float:
    """Relative to the sum of magnitudes. float32 adds in float64 and rounds once: half an ulp;
    float64 adds at most 256 elements a lane, then 4 + log2(blocks) levels."""
    if dtype == "float32":
        return 2.0**-24 * 1.01
    return 2.0**-53 * (min(n, 256) + 5 + math.log2(n / 4096 + 1))


def axes_of(rank: int) -> Iterator[tuple[int, ...]]:
    for count in range(rank + 1):
        yield from itertools.combinations(range(rank), count)


def draw_array(data: st.DataObject, largest: int = 9) -> Array:
    shape = data.draw(st.lists(st.integers(1, largest), max_size=4), label="shape")
    dtype = data.draw(st.sampled_from(DTYPES), label="dtype")
    seed = data.draw(st.integers(0, 2**16), label="seed")
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def layouts(x: Array) -> Iterator[Array]:
    """The same values in other places."""
    yield np.asfortranarray(x)
    yield np.flip(np.flip(x).copy())
    spread = np.zeros([2 * n + 1 for n in x.shape], x.dtype)[
        (*(slice(1, None, 2) for _ in x.shape), ...)
    ]
    spread[...] = x
    yield spread


@pytest.mark.parametrize("name", REDUCTIONS)
@given(data=st.data())
def test_reduces_like_numpy_over_any_axes(name: str, data: st.DataObject) -> None:
    x = draw_array(data)
    axes = data.draw(st.sampled_from([None, *axes_of(x.ndim)]), label="axes")
    keepdims = data.draw(st.booleans(), label="keepdims")
    got = getattr(_core, name)(x, axes, keepdims=keepdims)
    wide = x.astype(np.longdouble)
    expected = REDUCTIONS[name](wide, axis=axes, keepdims=keepdims)
    magnitude = REDUCTIONS[name](np.abs(wide), axis=axes, keepdims=keepdims)
    assert got.shape == expected.shape
    assert got.dtype == x.dtype
    assert np.all(np.abs(got - expected) <= tolerance(str(x.dtype), x.size) * np.abs(magnitude))


@pytest.mark.parametrize("name", REDUCTIONS)
@given(data=st.data())
def test_bits_do_not_depend_on_the_layout(name: str, data: st.DataObject) -> None:
    x = draw_array(data)
    axes = data.draw(st.sampled_from([None, *axes_of(x.ndim)]), label="axes")
    expected = getattr(_core, name)(x, axes)
    for same in layouts(x):
        assert getattr(_core, name)(same, axes).tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((9001,), None),
        ((3, 9001), 1),
        ((9001, 5), 0),
        ((70, 300), None),
        ((8500, 140), 0),
        ((5, 70, 90), (0, 2)),
    ],
)
def test_bits_do_not_depend_on_isa_threads_or_layout_of_many_blocks(
    name: str, shape: tuple[int, ...], axes: Any
) -> None:
    x = np.random.default_rng(0).normal(size=shape).astype("f4")
    function = getattr(_core, name)
    expected = function(x, axes)
    for isa, threads in itertools.product(_core.available_isas(), (1, 2, 3)):
        _core.use_isa(isa)
        _core.set_num_threads(threads)
        for same in (x, np.asfortranarray(x)):
            assert function(same, axes).tobytes() == expected.tobytes(), (isa, threads)


@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 4095, 4096, 4097, 3 * 4096, 23456])
def test_float64_sums_follow_the_documented_tree(n: int) -> None:
    x = np.random.default_rng(n).normal(size=n)
    expected = reference.tree_sum(x) if n else 0.0
    assert float(_core.sum(x)) == expected
    assert float(_core.mean(np.repeat(x[:, None], 7, 1), 0)[3]) == expected / n if n else True


@pytest.mark.parametrize("n", [10, 4096, 1_000_003])
def test_float32_sums_round_once(n: int) -> None:
    x = np.random.default_rng(n).uniform(0.1, 1, n).astype("f4")
    exact = math.fsum(x.tolist())
    assert _core.sum(x) == np.float32(exact)
    assert _core.mean(x) == np.float32(exact / n)


def test_sums_of_integers_are_exact() -> None:
    x = np.random.default_rng(0).integers(-1000, 1000, (60, 70, 80)).astype("f4")
    for axes in axes_of(3):
        np.testing.assert_array_equal(_core.sum(x, axes), x.astype("i8").sum(axes))


def test_broadcast_arrays_are_summed_as_if_written_out() -> None:
    x = np.broadcast_to(np.arange(3.0), (5, 4, 3))
    for axes in axes_of(3):
        np.testing.assert_array_equal(_core.sum(x, axes), x.sum(axes))


@pytest.mark.parametrize("name", ["max", "min"])
@pytest.mark.parametrize("position", [0, 7, 16, 39])
def test_nan_wins_against_everything(isa: str, name: str, position: int) -> None:
    x = np.arange(40.0)
    x[position] = np.nan
    assert np.isnan(getattr(_core, name)(x))
    columns = np.stack([np.arange(40.0), x], 1).repeat(4, 1)
    np.testing.assert_array_equal(
        np.isnan(getattr(_core, name)(columns, 0)), [False] * 4 + [True] * 4
    )


def test_infinities_are_ordinary_values(isa: str) -> None:
    x = np.array([-np.inf, 1, np.inf])
    assert (_core.max(x), _core.min(x)) == (np.inf, -np.inf)
    assert (_core.max(x[:1]), _core.min(x[2:])) == (-np.inf, np.inf)
    assert np.isnan(_core.sum(x))
    assert _core.sum_squares(x) == np.inf


def test_float32_beyond_its_range_becomes_infinite_once() -> None:
    x = np.array([3e38, 3e38, -3e38], "f4")
    assert _core.sum(x) == np.float32(3e38)
    assert _core.sum(x[:2]) == np.inf


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 4)])
def test_sum_of_nothing_is_zero_and_its_mean_is_nan(shape: tuple[int, ...], dtype: str) -> None:
    x = np.zeros(shape, dtype)
    for axes in axes_of(len(shape)):
        expected = x.sum(axes)
        np.testing.assert_array_equal(_core.sum(x, axes), expected)
        np.testing.assert_array_equal(_core.sum_squares(x, axes), expected)
        n = math.prod(shape[i] for i in axes)
        means = _core.mean(x, axes)
        assert means.shape == expected.shape
        assert np.isnan(means).all() if n == 0 else means.size == 0


def test_maximum_of_no_elements_for_no_results_is_empty() -> None:
    assert _core.max(np.zeros((0, 3)), 1).shape == (0,)


@pytest.mark.torch
@pytest.mark.parametrize("dtype", DTYPES)
def test_agrees_with_torch(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(40, 50, 30)).astype(dtype)
    t = torch.from_numpy(x)
    for axes in [(0,), (1,), (2,), (0, 2), (0, 1, 2)]:
        n = math.prod(x.shape[i] for i in axes)
        atol = n * np.finfo(dtype).eps
        np.testing.assert_allclose(_core.sum(x, axes), t.sum(axes).numpy(), rtol=0, atol=atol)
        np.testing.assert_allclose(
            _core.mean(x, axes), t.mean(axes).numpy(), rtol=0, atol=atol / n * 4
        )
        np.testing.assert_array_equal(_core.max(x, axes), t.amax(axes).numpy())
        np.testing.assert_array_equal(_core.min(x, axes), t.amin(axes).numpy())


@pytest.mark.parametrize("name", REDUCTIONS)
def test_an_axis_may_be_a_numpy_integer(name: str) -> None:
    x = np.arange(6.0).reshape(2, 3)
    for axis in (np.int64(1), np.uint8(0), (np.int32(0), np.int64(-1))):
        plain = tuple(map(int, axis)) if isinstance(axis, tuple) else int(axis)
        reduction = getattr(_core, name)
        np.testing.assert_array_equal(reduction(x, axis), reduction(x, plain))


BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: _core.sum([1.0]), TypeError, "sum: x must be an array, got list"),
    (lambda: _core.sum(np.arange(3)), TypeError, "sum: x must be float32 or float64, got int64"),
    (lambda: _core.mean(np.ones(3), 1), ValueError, "mean: axis is 1, expected between -1 and 0"),
    (lambda: _core.sum(np.ones((2, 2)), (0, -2)), ValueError, "sum: axis names an axis twice"),
    (
        lambda: _core.sum(np.ones(2), 0.5),
        TypeError,
        "sum: axis must be None, an int or a tuple of ints",
    ),
    (
        lambda: _core.max(np.ones((0, 3)), 0),
        ValueError,
        r"max: x has shape \(0, 3\) and nothing to choose from along the reduced axes",
    ),
    (lambda: _core.min(np.ones(0)), ValueError, r"min: x has shape \(0,\) and nothing to choose"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_arguments_are_named(
    call: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()
