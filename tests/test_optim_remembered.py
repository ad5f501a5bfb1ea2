"""What an optimizer remembers of the last step (checks of gradients, scalars) never shows."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optim_table import Array, Options, Row, assert_same_bits, drawn, every_variant
from thalweg import Tensor
from thalweg.optim import SGD, Adam

SHAPES = [(5,), (3, 4), (2,), (6,)]


@every_variant
def test_tensors_of_one_group_step_as_if_each_had_its_own(row: Row, options: Options) -> None:
    """Tensors without a gradient fall behind in their step counts, and rates differ."""
    together, apart = drawn(SHAPES, np.float64, 0), drawn(SHAPES, np.float64, 0)
    scales = [1.0, 1.0, 0.5, 1.0]
    opt = row.make([{"params": together, "lr_scale": scales}], **options)
    each = [
        row.make([{"params": [p], "lr_scale": s}], **options)
        for p, s in zip(apart, scales, strict=True)
    ]
    for t, present in enumerate([(1, 1, 1, 1), (1, 0, 1, 0), (0, 1, 1, 1), (1, 1, 1, 1)]):
        grads = [
            g if p else None for g, p in zip(drawn(SHAPES, np.float64, t), present, strict=True)
        ]
        opt.step(grads)
        for one, g in zip(each, grads, strict=True):
            one.step([g])
    assert_same_bits(together, apart)


# How the gradient of one tensor comes: as it was, as another array, as a view, in several pieces.
WAYS: dict[str, Any] = {
    "same": lambda g, room: (np.copyto(room, g), room)[1],
    "new": lambda g, room: g.copy(),
    "strided": lambda g, room: np.repeat(g, 2)[::2],
    "list": lambda g, room: [(np.copyto(room, g), room)[1], np.zeros_like(g)],
    "none": lambda g, room: None,
}


@settings(max_examples=40)
@given(st.lists(st.tuples(*[st.sampled_from(list(WAYS))] * 3, st.booleans()), max_size=6))
def test_gradients_may_come_in_another_way_each_step(plan: list[tuple[Any, ...]]) -> None:
    shapes = [(5,), (17,), (3,)]
    params, expected = drawn(shapes, np.float32, 0), drawn(shapes, np.float32, 0)
    rooms = drawn(shapes, np.float32, 1)
    opt, plain = Adam(params), Adam(expected)
    for t, (*ways, zero) in enumerate(plan):
        values = drawn(shapes, np.float32, t)
        grads = [WAYS[w](g, room) for w, g, room in zip(ways, values, rooms, strict=True)]
        zero_grad = zero and "strided" not in ways
        opt.step(grads, zero_grad=zero_grad)
        new = [None if w == "none" else g.copy() for w, g in zip(ways, values, strict=True)]
        plain.step(new)
        assert_same_bits(params, expected)
        if zero_grad:
            assert not any(np.any(g) for g in grads if g is not None and not isinstance(g, list))


def test_array_that_became_read_only_is_refused_when_it_shall_be_zeroed() -> None:
    params, grads = [np.ones(3), np.ones(2)], [np.ones(3), np.ones(2)]
    opt = Adam(params)
    opt.step(grads, zero_grad=True)
    opt.step(grads)
    grads[1].flags.writeable = False
    opt.step(grads)
    before = [p.copy() for p in params]
    with pytest.raises(ValueError, match=r"grads\[1\] is read-only"):
        opt.step(grads, zero_grad=True)
    assert_same_bits(params, before)
    opt.step(grads)


def test_strided_gradient_is_taken_after_it_was_refused() -> None:
    p, g = np.zeros(3), np.ones(6)[::2]
    opt = SGD([p], 1.0)
    with pytest.raises(ValueError, match="contiguous"):
        opt.step([g], zero_grad=True)
    for _ in range(2):
        opt.step([g])
        g *= 2
    assert p.tolist() == [-3.0] * 3


def test_gradient_that_came_to_lie_on_a_parameter_is_refused() -> None:
    memory: Array = np.zeros(8)
    opt = SGD([memory[:3]], 1.0)
    opt.step([memory[3:6]])
    with pytest.raises(ValueError, match="shares memory"):
        opt.step([memory[2:5]])


def test_parameter_of_another_shape_is_refused_as_long_as_it_is() -> None:
    params = [Tensor(np.ones(n), requires_grad=True) for n in (3, 4)]
    grads = [np.ones(3), np.ones(4)]
    opt = SGD(params, 1.0)
    opt.step(grads)
    first, second = np.zeros(3), params[1].data
    params[0].data, params[1].data = first, np.zeros((2, 2))
    for _ in range(2):
        with pytest.raises(ValueError, match=r"parameter 1 was \(4,\)"):
            opt.step(grads)
    params[1].data = second
    opt.step(grads)
    assert first.tolist() == [-1] * 3
    assert second.tolist() == [-1] * 4


@pytest.mark.parametrize("change", ["element", "list", "order", "clear"])
def test_other_parameters_in_the_groups_are_refused(change: str) -> None:
    params = drawn([(3,), (3,)], np.float64, 0)
    before = [p.copy() for p in params]
    opt = Adam([{"params": [p]} for p in params])
    groups = opt.param_groups
    if change == "element":
        groups[0]["params"][0] = np.ones(3)
    elif change == "list":
        groups[0]["params"] = []
    elif change == "order":
        groups.reverse()
    else:
        groups.clear()
    with pytest.raises(ValueError, match="add_param_group"):
        opt.step(params)
    assert_same_bits(params, before)


def test_option_that_was_deleted_is_refused() -> None:
    p = np.ones(3)
    opt = SGD([p], 1.0)
    opt.step([p.copy()])
    del opt.param_groups[0]["lr"]
    with pytest.raises(ValueError, match="lacks 'lr'"):
        opt.step([np.ones(3)])
    assert p.tolist() == [0] * 3


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_gradient_whose_layout_was_set_in_place_is_read_so() -> None:
    p: Any = np.zeros((2, 2))
    g: Any = np.arange(4.0).reshape(2, 2)
    opt = SGD([p], 1.0)
    opt.step([g])
    g.strides = g.strides[::-1]
    opt.step([g])
    assert p.tolist() == [[0, -3], [-3, -6]]
    g.dtype = np.int64
    with pytest.raises(TypeError, match=r"grads\[0\]"):
        opt.step([g])


@pytest.mark.torch
def test_torch_gradient_whose_storage_was_freed_is_refused() -> None:
    torch = pytest.importorskip("torch")
    p = torch.nn.Parameter(torch.zeros(4))
    p.grad = torch.ones(4)
    opt = SGD([p], 1.0)
    opt.step()
    p.grad.untyped_storage().resize_(0)
    with pytest.raises(ValueError, match="storage was freed"):
        opt.step()


def test_a_second_thread_is_refused_while_gradients_are_looked_at() -> None:
    """What a step remembers belongs to it until it ends."""
    p = np.zeros(4)
    opt = SGD([p], lr=1.0)
    errors: list[str] = []

    class Gradient:
        """Its conversion meets another thread's step."""

        def __dlpack_device__(self) -> tuple[int, int]:
            return (1, 0)

        def __dlpack__(self, **_: Any) -> Any:
            other = threading.Thread(target=self.step)
            other.start()
            other.join()
            return np.ones(4).__dlpack__()

        def step(self) -> None:
            try:
                opt.step([np.ones(4)])
            except RuntimeError as error:
                errors.append(str(error))

    opt.step([Gradient()])
    assert len(errors) == 1 and "another thread" in errors[0]
    np.testing.assert_array_equal(p, -1)
