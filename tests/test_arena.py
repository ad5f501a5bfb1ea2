"""One allocation for all parameters, one for all gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import thalweg as tw
from thalweg.backend import Arena, aligned_empty


def ones(*shape: int) -> tw.Tensor:
    return tw.ones(*shape, requires_grad=True)


@given(st.lists(st.lists(st.integers(0, 5), max_size=3), min_size=1, max_size=6), st.data())
def test_an_arena_keeps_values_and_identity(shapes: list[list[int]], data: st.DataObject) -> None:
    draw = np.random.default_rng(0)
    dtypes = [data.draw(st.sampled_from([np.float32, np.float64])) for _ in shapes]
    tensors = [
        tw.Tensor(draw.standard_normal(shape).astype(dtype), requires_grad=True)
        for shape, dtype in zip(shapes, dtypes, strict=True)
    ]
    values = [t.data.copy() for t in tensors]
    arena = Arena(tensors)
    for tensor, value in zip(tensors, values, strict=True):
        np.testing.assert_array_equal(tensor.data, value)
        where = arena.slices[id(tensor)]
        flat = arena.data[tensor.dtype]
        assert where.start % 16 == 0 and where.stop - where.start == tensor.numel()
        assert flat.size == 0 or flat.ctypes.data % 64 == 0
        np.testing.assert_array_equal(flat[where], value.ravel())
    for dtype, flat in arena.data.items():
        members = [t for t in tensors if t.dtype == dtype]
        assert np.abs(flat).sum() == pytest.approx(sum(np.abs(t.data).sum() for t in members))
        assert flat.size % 16 == 0 and arena.grad[dtype].size == flat.size


def test_backward_writes_into_the_arena() -> None:
    x, w = ones(3), ones(2, 2)
    (x * 5).sum().backward()
    arena = Arena([x, w])
    buffer = arena.grad[np.dtype(np.float32)]
    assert x.grad is not None and np.shares_memory(x.grad.data, buffer)
    np.testing.assert_array_equal(buffer[:3], [5, 5, 5])
    for _ in range(2):
        ((x * 2).sum() + (w * 3).T.sum()).backward()
    np.testing.assert_array_equal(buffer[arena.slices[id(x)]], [9, 9, 9])
    np.testing.assert_array_equal(buffer[arena.slices[id(w)]], [6, 6, 6, 6])
    assert w.grad is not None and np.shares_memory(w.grad.data, buffer)
    x.grad = None
    np.testing.assert_array_equal(buffer[arena.slices[id(x)]], [0, 0, 0])
    x.grad = tw.ones(3)
    assert np.shares_memory(x.grad.data, buffer)
    np.testing.assert_array_equal(buffer[arena.slices[id(x)]], [1, 1, 1])


def test_create_graph_works_in_an_arena() -> None:
    x = tw.tensor([2.0], requires_grad=True)
    arena = Arena([x])
    (x**3).sum().backward(create_graph=True)
    assert x.grad is not None and np.shares_memory(x.grad.data, arena.grad[x.dtype])
    (second,) = tw.grad(x.grad, [x])
    assert second is not None and second.item() == 12


def test_an_arena_takes_memory_from_where_it_is_told() -> None:
    asked: list[tuple[int, Any]] = []

    def allocate(elements: int, dtype: Any) -> Any:
        asked.append((elements, dtype))
        return aligned_empty(elements, dtype)

    Arena([ones(3), ones(17)], allocate)
    assert asked == [(48, np.float32), (48, np.float32)]


def test_a_module_that_changes_its_dtype_leaves_the_arena() -> None:
    model = tw.nn.Linear(2, 3)
    arena = Arena(model.parameters())
    model(tw.ones(1, 2)).sum().backward()
    model.double()(tw.ones(1, 2, dtype=np.float64)).sum().backward()
    for parameter in model.parameters():
        assert parameter.grad is not None and parameter.grad.dtype == np.float64
        assert not np.shares_memory(parameter.data, arena.data[np.dtype(np.float32)])
