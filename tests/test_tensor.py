"""Tensors: the classic slide, kinds of data, writing in place."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import numpy as np
import pytest

import thalweg as tw


def ones(*shape: int) -> tw.Tensor:
    return tw.ones(*shape, requires_grad=True)


def test_the_classic_slide_runs() -> None:
    x = tw.empty(5, 3)
    x = tw.rand(5, 3)
    x = tw.zeros(5, 3)
    x = tw.tensor([5.5, 3])
    x = x.new_ones(5, 3)
    x = tw.randn_like(x)
    assert x.size() == (5, 3)
    y = tw.rand(5, 3)
    np.testing.assert_array_equal(x + y, x.data + y.data)
    np.testing.assert_array_equal(tw.add(x, y), x.data + y.data)
    before = y.data.copy()
    y.add_(x)
    np.testing.assert_array_equal(y, before + x.data)
    np.testing.assert_array_equal(x[:, 1], x.data[:, 1])
    x = tw.randn(4, 4)
    assert x.view(16).size() == (16,)
    assert x.view(-1, 8).size() == (2, 8)
    assert isinstance(tw.randn(1).item(), float)

    x = tw.ones(2, 2, requires_grad=True)
    z = (x + 2) * (x + 2) * 3
    out = z.mean()
    assert out.item() == 27
    out.backward()
    np.testing.assert_array_equal(x.grad, np.full((2, 2), 4.5))

    a = tw.randn(2, 2)
    a = (a * 3) / (a - 1)
    assert not a.requires_grad
    a.requires_grad_(True)
    assert (a * a).sum().requires_grad

    x = tw.randn(3, requires_grad=True)
    y = x * 2
    doublings = 1
    while y.detach().norm() < 1000:
        y = y * 2
        doublings += 1
    gradient = tw.tensor([0.1, 1.0, 0.0001])
    y.backward(gradient)
    np.testing.assert_array_equal(x.grad, gradient.data * np.float32(2**doublings))

    assert (x**2).requires_grad
    with tw.no_grad():
        assert not (x**2).requires_grad
    w = tw.empty(3).normal_().requires_grad_()
    (w - 1).norm().backward()
    assert w.grad is not None


IN_PLACE: dict[str, Callable[[tw.Tensor], object]] = {
    "add_": lambda x: x.add_(1),
    "sub_": lambda x: x.sub_(1),
    "mul_": lambda x: x.mul_(2),
    "div_": lambda x: x.div_(2),
    "clamp_": lambda x: x.clamp_(0, 0.5),
    "copy_": lambda x: x.copy_(tw.zeros(3)),
    "fill_": lambda x: x.fill_(7),
    "zero_": lambda x: x.zero_(),
    "normal_": lambda x: x.normal_(),
    "uniform_": lambda x: x.uniform_(),
    "setitem": lambda x: x.__setitem__(0, 5),
    "iadd on a leaf": lambda x: x.__iadd__(1),
}


@pytest.mark.parametrize("name", list(IN_PLACE))
def test_in_place_writes_without_history_and_refuses_where_a_gradient_is_due(name: str) -> None:
    x = ones(3)
    with pytest.raises(RuntimeError, match="requires grad cannot be changed in place"):
        IN_PLACE[name](x)
    np.testing.assert_array_equal(x.data, np.ones(3))
    memory = x.data
    with tw.no_grad():
        IN_PLACE[name](x)
    assert x.data is memory and not np.array_equal(memory, np.ones(3))


def test_augmented_assignment_updates_leaves_and_replaces_results() -> None:
    w = ones(2)
    (w * 3).sum().backward()
    memory = w.data
    with tw.no_grad():
        w -= 0.5 * w.grad
    assert w.data is memory and w.requires_grad
    np.testing.assert_array_equal(memory, [-0.5, -0.5])
    loss = (w * 2).sum()
    first = loss
    loss += (w * w).sum()
    assert loss is not first
    loss.backward()


def test_dtypes_of_new_tensors() -> None:
    assert tw.tensor([1, 2]).dtype == np.float32
    assert tw.tensor(1.5).dtype == np.float32
    assert tw.tensor(np.ones(2)).dtype == np.float64
    assert tw.tensor(np.arange(3), dtype=np.float64).dtype == np.float64
    for make in (tw.empty, tw.zeros, tw.ones, tw.rand, tw.randn):
        assert make(2, 3).dtype == np.float32
        assert make((2, 3), dtype=np.float64).dtype == np.float64
        assert make(2, 3).shape == make((2, 3)).shape == (2, 3)
        assert make(3, requires_grad=True).requires_grad
    assert tw.full((2,), 3).tolist() == [3, 3]
    assert tw.arange(3).tolist() == [0, 1, 2]
    assert tw.linspace(0, 1, 3).tolist() == [0, 0.5, 1]
    assert tw.eye(2).tolist() == [[1, 0], [0, 1]]


def test_random_tensors_are_a_function_of_the_seed() -> None:
    np.testing.assert_array_equal(tw.rand(5, seed=1), tw.rand(5, seed=1))
    assert (tw.rand(5, seed=1) != tw.rand(5, seed=2)).any()
    tw.manual_seed(7)
    first = tw.randn(4).data
    state = tw.random.default_generator().state_dict()
    second = tw.randn(4).data
    tw.random.default_generator().load_state_dict(state)
    np.testing.assert_array_equal(tw.randn(4), second)
    tw.manual_seed(7)
    np.testing.assert_array_equal(tw.randn(4), first)


def test_generator_state_covers_step_and_offset() -> None:
    generator = tw.Generator(3)
    generator.advance()
    generator.sample_offset = 8
    other = tw.Generator()
    other.load_state_dict(generator.state_dict())
    assert (other.seed, other.step, other.sample_offset) == (3, 1, 8)


def test_arrays_and_tensors_mix_and_the_result_is_a_tensor() -> None:
    array, x = np.full(3, 2.0, np.float32), ones(3)
    for y in (array + x, x + array, array - x, array * x, array / x, array @ x, np.float32(2) * x):
        assert isinstance(y, tw.Tensor) and y.requires_grad and y.dtype == np.float32


def test_comparisons_and_positions_are_arrays() -> None:
    x = tw.tensor([1.0, 3.0, 2.0])
    assert (x > 1.5).tolist() == [False, True, True]
    assert (x == x).all() and not (x != x).any()
    assert x.argmax() == 1
    assert len({x, tw.tensor([1.0, 3.0, 2.0])}) == 2
    assert [float(v) for v in x] == [1, 3, 2]


def test_a_tensor_is_an_array_to_other_libraries_without_a_copy() -> None:
    x = tw.ones(3)
    assert np.asarray(x) is x.data
    assert np.shares_memory(np.from_dlpack(x), x.data)
    assert not np.shares_memory(np.array(x), x.data)


@pytest.mark.torch
def test_torch_reads_a_tensor_without_a_copy() -> None:
    torch = pytest.importorskip("torch")
    x = tw.ones(3)
    theirs = torch.from_dlpack(x)
    theirs.add_(1)
    np.testing.assert_array_equal(x, [2, 2, 2])


def test_copies_and_pickles_of_leaves() -> None:
    x = ones(3)
    (x * 2).sum().backward()
    twin = copy.deepcopy(x)
    assert twin.requires_grad and not np.shares_memory(twin.data, x.data)
    np.testing.assert_array_equal(twin.grad, x.grad)
    parameter = tw.nn.Parameter(np.ones(2))
    again = pickle.loads(pickle.dumps(parameter))
    assert type(again) is tw.nn.Parameter and again.requires_grad
    with pytest.raises(RuntimeError, match="only a leaf"):
        copy.deepcopy(x * 2)


def test_casts_carry_gradients() -> None:
    x = ones(3)
    (x.double() * 2).sum().backward()
    assert x.grad.dtype == np.float32
    np.testing.assert_array_equal(x.grad, [2, 2, 2])
    assert x.to("cpu") is x


def test_a_single_element_formats_as_the_number_it_is() -> None:
    loss = tw.tensor(2.5)
    assert (f"{loss:.3f}", int(loss), f"{loss}") == ("2.500", 2, "tensor(2.5)")


def test_scaled_numbers_can_be_added_in_place() -> None:
    assert tw.ones(2).add_(2, alpha=3).tolist() == [7, 7]
    assert tw.ones(2).add_(tw.ones(2), alpha=3).tolist() == [4, 4]


def test_numpy_integers_are_sizes() -> None:
    assert tw.ones(2, 3).reshape(np.int64(6)).shape == (6,)
    assert tw.ones(2, 3).view(np.int64(3), -1).shape == (3, 2)
    assert tw.ones(2).new_full(3, 1).shape == (3,)


def test_nothing_can_be_flattened() -> None:
    assert tw.zeros(0, 3, 4).flatten(1).shape == (0, 12)
    assert tw.nn.Flatten()(tw.zeros(0, 3, 4)).shape == (0, 12)


def test_the_gradient_of_zero_to_the_power_of_zero_is_zero() -> None:
    a, b = tw.tensor([0.0, 2.0], requires_grad=True), tw.tensor([0.0, 0.0], requires_grad=True)
    (a**b).sum().backward()
    assert a.grad is not None
    assert a.grad.tolist() == [0, 0]
