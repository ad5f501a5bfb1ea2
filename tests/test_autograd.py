"""What is recorded, what backward writes, and how deep it goes."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import thalweg as tw
from gradcheck import check_gradient
from thalweg.autograd import is_grad_enabled


def ones(*shape: int) -> tw.Tensor:
    return tw.ones(*shape, requires_grad=True)


def test_recording_is_off_in_no_grad_and_in_ordinary_backward() -> None:
    seen: list[bool] = []
    x = ones(2)
    x.register_post_accumulate_grad_hook(lambda _: seen.append(is_grad_enabled()))
    (x * x).sum().backward()
    assert seen == [False]
    assert x.grad is not None and not x.grad.requires_grad
    with tw.no_grad():
        y = x * 2
        with tw.enable_grad():
            assert (x * 2).requires_grad
        assert not is_grad_enabled()
    assert is_grad_enabled() and y.is_leaf and not y.requires_grad


def test_no_grad_decorates_functions_and_survives_exceptions_and_reentry() -> None:
    guard = tw.no_grad()

    @guard
    def depth(n: int) -> bool:
        assert not is_grad_enabled()
        return depth(n - 1) if n else True

    assert depth(3) and depth.__name__ == "depth"
    with pytest.raises(ZeroDivisionError), guard:
        _ = 1 / 0
    assert is_grad_enabled()


def test_grad_mode_belongs_to_a_thread() -> None:
    seen: list[bool] = []
    with tw.no_grad():
        thread = threading.Thread(target=lambda: seen.append(is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


def test_results_without_a_gradient_keep_no_history() -> None:
    x = tw.ones(2)
    y = x * 2
    assert y.is_leaf and y.edge is None
    z = ones(2).detach() + x
    assert not z.requires_grad


DEPTH = 10_000


def chain(x: tw.Tensor, depth: int) -> tw.Tensor:
    for _ in range(depth):
        x = x + 1
    return x


def test_a_graph_ten_thousand_deep_runs_backward() -> None:
    x = ones()
    chain(x, DEPTH).backward()
    assert x.grad is not None and x.grad.item() == 1


@pytest.mark.parametrize("depth", [DEPTH, 10 * DEPTH])
def test_a_deep_graph_is_destroyed_without_backward(depth: int) -> None:
    y = chain(ones(), depth)
    del y


def test_a_deep_graph_of_the_backward_pass_is_differentiated_and_destroyed() -> None:
    x = tw.tensor([1.0001], requires_grad=True)
    y = x
    for _ in range(2_000):
        y = y * x
    (slope,) = tw.grad(y, [x], create_graph=True)
    (second,) = tw.grad(slope, [x])
    expected = 2001 * 2000 * np.float64(np.float32(1.0001)) ** 1999
    assert second is not None
    np.testing.assert_allclose(second, [expected], rtol=1e-3)


def test_a_graph_has_no_reference_cycles() -> None:
    class Probe(tw.Tensor):
        pass

    gc.collect()
    gc.disable()
    try:
        x = Probe(np.ones(3), requires_grad=True)
        probe = weakref.ref(x)
        y = (x.exp() / x.sigmoid()).softmax().norm() ** x.sum()
        del x, y
        assert probe() is None
    finally:
        gc.enable()


def test_a_result_that_no_gradient_needs_is_freed_in_the_forward_pass() -> None:
    x, b = ones(3), ones(3)
    total = x + b
    memory = weakref.ref(total.data)
    y = total.relu().sum()
    del total
    assert memory() is None
    y.backward()
    np.testing.assert_array_equal(x.grad, np.ones(3))


def test_gradients_accumulate_until_they_are_cleared() -> None:
    x = ones(3)
    for times in (1, 2, 3):
        (x * 2).sum().backward()
        np.testing.assert_array_equal(x.grad, np.full(3, 2.0 * times))
    x.grad = None
    (x * 2).sum().backward()
    np.testing.assert_array_equal(x.grad, np.full(3, 2.0))


def test_gradients_never_share_memory() -> None:
    x, w = ones(3), ones(3)
    seed = tw.ones(3)
    (x + w).backward(seed)
    x.grad.data += 1
    np.testing.assert_array_equal(w.grad, np.ones(3))
    np.testing.assert_array_equal(seed, np.ones(3))
    x.backward(seed)
    np.testing.assert_array_equal(seed, np.ones(3))


def test_gradients_of_views_are_contiguous_and_writable() -> None:
    for f in (lambda x: x.T.sum(), lambda x: x.reshape(6).sum(), lambda x: x[::-1].mean()):
        x = ones(2, 3)
        f(x).backward()
        assert x.grad.data.flags.c_contiguous and x.grad.data.flags.writeable


def test_a_graph_is_freed_unless_it_is_retained() -> None:
    x = ones(3)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    before = x.grad.data.copy()
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        y.backward()
    np.testing.assert_array_equal(x.grad, before)


def test_an_error_in_the_graph_is_found_before_any_gradient_is_written() -> None:
    x, w = ones(3), ones(3)
    shared = x * x
    shared.sum().backward()
    with pytest.raises(RuntimeError, match="freed"):
        (shared * w).sum().backward()
    assert w.grad is None


def test_hooks_run_once_with_the_complete_gradient_and_last_layers_first() -> None:
    seen: list[tuple[int, float]] = []
    weights = [tw.tensor([2.0], requires_grad=True) for _ in range(4)]
    for i, w in enumerate(weights):
        w.register_post_accumulate_grad_hook(lambda t, i=i: seen.append((i, t.grad.item())))
    y = tw.ones(1)
    for w in weights:
        y = y * w + w
    y.backward()
    assert [i for i, _ in seen] == [3, 2, 1, 0]
    assert [g for _, g in seen] == [weights[i].grad.item() for i, _ in seen]


def test_grad_returns_gradients_and_writes_none() -> None:
    x = tw.tensor([3.0], requires_grad=True)
    h = x * x
    y = h * x
    dx, dh = tw.grad(y, [x, h], retain_graph=True)
    assert (dx.item(), dh.item()) == (27, 3)
    unrelated = ones(1)
    assert tw.grad(y, [unrelated]) == (None,)
    assert x.grad is None


def test_derivatives_of_any_order() -> None:
    x = tw.tensor([2.0], requires_grad=True, dtype=np.float64)
    y = x**5
    for factor, power in ((5, 4), (20, 3), (60, 2), (120, 1), (120, 0)):
        (y,) = tw.grad(y, [x], create_graph=True)
        np.testing.assert_allclose(y.item(), factor * 2.0**power, rtol=1e-14)


def test_hessian_vector_product_by_backward_with_create_graph() -> None:
    x = tw.tensor([1.0, 2.0, 3.0], requires_grad=True)
    (x**3).sum().backward(create_graph=True)
    assert x.grad is not None and x.grad.requires_grad
    v = tw.tensor([1.0, 0.0, -1.0])
    (hv,) = tw.grad((x.grad * v).sum(), [x])
    np.testing.assert_allclose(hv, 6 * x.data * v.data)


PROGRAM: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "tanh": lambda a, _: a.tanh(),
    "sigmoid": lambda a, _: a.sigmoid(),
    "matmul": lambda a, b: a @ b * 0.5,
    "transpose": lambda a, _: a.T,
}


@given(
    st.lists(st.tuples(st.sampled_from(list(PROGRAM)), st.integers(0), st.integers(0)), max_size=12)
)
def test_gradients_of_drawn_programs(steps: list[tuple[str, int, int]]) -> None:
    def run(*inputs: Any) -> Any:
        values = list(inputs)
        for name, i, j in steps:
            values.append(PROGRAM[name](values[i % len(values)], values[j % len(values)]))
        return sum(values[1:], values[0])

    draw = np.random.default_rng(len(steps))
    check_gradient(run, [draw.uniform(-0.5, 0.5, (2, 2)) for _ in range(2)])


def test_threads_run_backward_at_the_same_time() -> None:
    results: list[float] = []

    def work(k: int) -> None:
        x = tw.full(100, k, requires_grad=True)
        for _ in range(20):
            x.grad = None
            (x * x).sum().backward()
        results.append(float(x.grad.data[0]))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [2.0 * k for k in range(8)]


def test_leaves_do_not_share_the_memory_of_their_gradients() -> None:
    a, b = tw.ones(3, requires_grad=True), tw.ones(3, requires_grad=True)
    ((a + b) * 2).sum().backward()
    assert a.grad is not None and b.grad is not None
    a.grad.zero_()
    assert b.grad.tolist() == [2, 2, 2]
