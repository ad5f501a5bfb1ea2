"""Tensor and its autograd: what is recorded, what backward writes, what it costs."""

from __future__ import annotations

import copy
import gc
import pickle
import subprocess
import sys
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
from thalweg.backend import Arena, aligned_empty


def ones(*shape: int) -> tw.Tensor:
    return tw.ones(*shape, requires_grad=True)


# --- the classic slide ---------------------------------------------------------------------------
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


# --- recording -----------------------------------------------------------------------------------
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


# --- backward ------------------------------------------------------------------------------------
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


# --- in place ------------------------------------------------------------------------------------
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


# --- kinds of data -------------------------------------------------------------------------------
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


# --- errors --------------------------------------------------------------------------------------
F32, F64 = tw.ones(3), tw.ones(3, dtype=np.float64)

ERRORS: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "dtypes add": (lambda: F32 + F64, TypeError, "float32.*float64|float64.*float32"),
    "dtypes matmul": (lambda: F32 @ F64, TypeError, "float32.*float64|float64.*float32"),
    "dtypes concatenate": (
        lambda: tw.concatenate([F32, F64]),
        TypeError,
        "array 0 is float32, array 1 is float64",
    ),
    "int data": (lambda: tw.tensor(np.arange(3)), TypeError, "float32 or float64, got int64"),
    "half data": (lambda: tw.Tensor(np.ones(3, np.float16)), TypeError, "got float16"),
    "complex data": (lambda: tw.Tensor(np.ones(3, complex)), TypeError, "got complex128"),
    "big endian": (lambda: tw.Tensor(np.ones(3, ">f4")), TypeError, "got >f4"),
    "int dtype": (lambda: tw.zeros(3, dtype=np.int64), TypeError, "got int64"),
    "int operand": (lambda: F32 + np.arange(3), TypeError, "int64"),
    "object operand": (lambda: F32 + object(), TypeError, "object"),
    "negative shape": (lambda: tw.zeros(2, -1), ValueError, r"\(2, -1\)"),
    "shapes": (lambda: F32 + tw.ones(4), ValueError, r"\(3,\).*\(4,\)"),
    "matmul shapes": (
        lambda: tw.ones(2, 3) @ tw.ones(2, 3),
        ValueError,
        r"\(2, 3\).*\(2, 3\)",
    ),
    "item": (lambda: F32.item(), ValueError, r"one element.*\(3,\)"),
    "bool": (lambda: bool(F32), ValueError, r"one element.*\(3,\)"),
    "backward without history": (
        lambda: F32.sum().backward(),
        RuntimeError,
        "nothing was recorded",
    ),
    "backward of a vector": (
        lambda: (ones(3) * 2).backward(),
        RuntimeError,
        r"gradient is needed .* \(3,\)",
    ),
    "gradient shape": (
        lambda: (ones(3) * 2).backward(tw.ones(4)),
        ValueError,
        r"gradient must have shape \(3,\), got \(4,\)",
    ),
    "gradient dtype": (
        lambda: (ones(3) * 2).backward(F64),
        TypeError,
        "gradient must be float32, got float64",
    ),
    "grad shape": (
        lambda: setattr(ones(3), "grad", tw.ones(4)),
        ValueError,
        r"\(3,\), got float32 of shape \(4,\)",
    ),
    "stop at a result": (
        lambda: (ones(3) * 2).requires_grad_(False),
        RuntimeError,
        "only a leaf",
    ),
    "numpy of a tensor with grad": (lambda: ones(3).numpy(), RuntimeError, "detach"),
    "device": (lambda: F32.to("cuda"), RuntimeError, "'cpu'.*'cuda'"),
    "in place dtype": (lambda: F32.add_(F64), TypeError, "float32|float64"),
    "in place shape": (lambda: F32.add_(tw.ones(2, 3)), ValueError, r"\(3,\)"),
    "matmul out": (
        lambda: tw.matmul(ones(2, 2), ones(2, 2), out=np.empty((2, 2), np.float32)),
        RuntimeError,
        "not recorded.*no_grad",
    ),
    "matmul gelu": (
        lambda: tw.matmul(ones(2, 2), ones(2, 2), activation="gelu"),
        RuntimeError,
        "apply the activation",
    ),
    "grad of a constant": (
        lambda: tw.grad(ones(3).sum(), [F32]),
        RuntimeError,
        "input 0 does not require grad",
    ),
    "view of a transpose": (lambda: tw.ones(2, 3).T.view(6), ValueError, "use reshape"),
    "var of one": (lambda: tw.ones(1).var(), ValueError, "more than 1 elements, got 1"),
    "empty concatenate": (lambda: tw.concatenate([]), ValueError, "at least one"),
    "seed": (lambda: tw.manual_seed(-1), ValueError, "got -1"),
    "std": (lambda: tw.zeros(3).normal_(0, -1), ValueError, "got -1"),
    "arena twice": (lambda: Arena([w := ones(2), w]), ValueError, "tensor 1 was given twice"),
    "arena result": (lambda: Arena([ones(2) * 2]), ValueError, "recorded operation"),
}


@pytest.mark.parametrize("name", list(ERRORS))
def test_errors_name_what_was_expected_and_what_came(name: str) -> None:
    call, kind, message = ERRORS[name]
    before = F32.data.copy(), F64.data.copy()
    with pytest.raises(kind, match=message):
        call()
    np.testing.assert_array_equal(F32.data, before[0])
    np.testing.assert_array_equal(F64.data, before[1])


# --- arena ---------------------------------------------------------------------------------------
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


def test_import_is_light() -> None:
    heavy = ["mpi4py", "matplotlib", "sklearn", "rich", "thalweg.trainer", "numpy.random"]
    code = (
        "import sys, numpy; before = set(sys.modules)\n"
        "import thalweg\n"
        f"print([m for m in {heavy} if m in sys.modules and m not in before])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
