"""Layers, losses, containers, initial values and the module system."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference.nn as ref
import thalweg as tw
from gradcheck import check_gradient, check_second_derivative
from thalweg import nn
from thalweg.functional.normalisation import merge_statistics

LABELS = np.array([2, 0, 1, 1])


# --- every layer and loss ------------------------------------------------------------------------
class Layer(NamedTuple):
    """How a layer is built, its input, its reference f(x, **state), and how torch builds it."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    reference: Callable[..., Any]
    torch: Callable[[Any], Any] | None = None


def state(*names: str, f: Callable[..., Any]) -> Callable[..., Any]:
    """f(x, state[name], …)."""
    return lambda x, values: f(x, *[values[name] for name in names])


LAYERS: dict[str, Layer] = {
    "Linear": Layer(
        lambda: nn.Linear(3, 4),
        (5, 3),
        state("weight", "bias", f=ref.linear),
        lambda t: t.nn.Linear(3, 4),
    ),
    "Linear without bias": Layer(
        lambda: nn.Linear(3, 4, bias=False),
        (2, 5, 3),
        lambda x, values: ref.linear(x, values["weight"], np.zeros(4)),
        lambda t: t.nn.Linear(3, 4, bias=False),
    ),
    "BlockLinear": Layer(
        lambda: nn.BlockLinear(6, 4, 2), (5, 6), state("weight", "bias", f=ref.block_linear)
    ),
    "BatchNorm1d": Layer(
        lambda: nn.BatchNorm1d(3),
        (6, 3),
        state("weight", "bias", f=lambda x, g, b: ref.batch_norm(x, g, b, 1e-5)),
        lambda t: t.nn.BatchNorm1d(3),
    ),
    "BatchNorm1d of sequences": Layer(
        lambda: nn.BatchNorm1d(3),
        (2, 3, 4),
        state("weight", "bias", f=lambda x, g, b: ref.batch_norm(x, g, b, 1e-5)),
        lambda t: t.nn.BatchNorm1d(3),
    ),
    "BatchNorm2d": Layer(
        lambda: nn.BatchNorm2d(2, momentum=None),
        (3, 2, 2, 3),
        state("weight", "bias", f=lambda x, g, b: ref.batch_norm(x, g, b, 1e-5)),
        lambda t: t.nn.BatchNorm2d(2, momentum=None),
    ),
    "BatchNorm1d plain": Layer(
        lambda: nn.BatchNorm1d(3, eps=0.1, affine=False, track_running_stats=False),
        (6, 3),
        lambda x, _: ref.batch_norm(x, np.ones(3), np.zeros(3), 0.1),
        lambda t: t.nn.BatchNorm1d(3, eps=0.1, affine=False, track_running_stats=False),
    ),
    "LayerNorm": Layer(
        lambda: nn.LayerNorm(4),
        (2, 3, 4),
        state("weight", "bias", f=lambda x, g, b: ref.layer_norm(x, g, b, 1e-5)),
        lambda t: t.nn.LayerNorm(4),
    ),
    "LayerNorm plain": Layer(
        lambda: nn.LayerNorm(4, elementwise_affine=False),
        (3, 4),
        lambda x, _: ref.layer_norm(x, np.ones(4), np.zeros(4), 1e-5),
        lambda t: t.nn.LayerNorm(4, elementwise_affine=False),
    ),
    "Identity": Layer(nn.Identity, (2, 3), lambda x, _: x, lambda t: t.nn.Identity()),
    "ReLU": Layer(nn.ReLU, (2, 3), lambda x, _: ref.relu(x), lambda t: t.nn.ReLU()),
    "LeakyReLU": Layer(
        lambda: nn.LeakyReLU(0.3),
        (2, 3),
        lambda x, _: ref.leaky_relu(x, 0.3),
        lambda t: t.nn.LeakyReLU(0.3),
    ),
    "Sigmoid": Layer(nn.Sigmoid, (2, 3), lambda x, _: ref.sigmoid(x), lambda t: t.nn.Sigmoid()),
    "Tanh": Layer(nn.Tanh, (2, 3), lambda x, _: ref.tanh(x), lambda t: t.nn.Tanh()),
    "GELU": Layer(nn.GELU, (2, 3), lambda x, _: ref.gelu(x), lambda t: t.nn.GELU()),
    "Softplus": Layer(nn.Softplus, (2, 3), lambda x, _: ref.softplus(x), lambda t: t.nn.Softplus()),
    "Softmax": Layer(nn.Softmax, (2, 3), lambda x, _: ref.softmax(x), lambda t: t.nn.Softmax(-1)),
    "LogSoftmax": Layer(
        lambda: nn.LogSoftmax(1),
        (2, 3),
        lambda x, _: ref.log_softmax(x, 1),
        lambda t: t.nn.LogSoftmax(1),
    ),
    "Flatten": Layer(nn.Flatten, (2, 3, 2), lambda x, _: x.reshape(2, 6), lambda t: t.nn.Flatten()),
    "Residual": Layer(
        lambda: nn.Residual(nn.Linear(3, 3)),
        (2, 3),
        state("body.weight", "body.bias", f=lambda x, w, b: ref.linear(x, w, b) + x),
    ),
    "Residual with shortcut": Layer(
        lambda: nn.Residual(nn.Tanh(), nn.Linear(3, 3)),
        (2, 3),
        state(
            "shortcut.weight", "shortcut.bias", f=lambda x, w, b: ref.linear(x, w, b) + ref.tanh(x)
        ),
    ),
    "Concat": Layer(
        lambda: nn.Concat(nn.Linear(3, 2), nn.Identity()),
        (2, 3),
        state("0.weight", "0.bias", f=lambda x, w, b: np.concatenate([ref.linear(x, w, b), x], 1)),
    ),
    "Sequential": Layer(
        lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)),
        (5, 3),
        lambda x, v: ref.linear(
            ref.tanh(
                ref.batch_norm(
                    ref.linear(x, v["0.weight"], v["0.bias"]), v["1.weight"], v["1.bias"], 1e-5
                )
            ),
            v["3.weight"],
            v["3.bias"],
        ),
        lambda t: t.nn.Sequential(
            t.nn.Linear(3, 4), t.nn.BatchNorm1d(4), t.nn.Tanh(), t.nn.Linear(4, 2)
        ),
    ),
}


class Loss(NamedTuple):
    """A loss, its prediction and target, and its name and options in torch."""

    ours: nn.Module
    target: Any
    torch: str
    options: dict[str, Any]


CONTINUOUS = np.random.default_rng(5).uniform(0, 1, (4, 3))
LOSSES: dict[str, Loss] = {
    f"{name} {options}": Loss(getattr(nn, name)(**options), target, name, options)
    for name, target, table in (
        ("MSELoss", CONTINUOUS, [{"reduction": r} for r in ("mean", "sum", "none")]),
        (
            "HuberLoss",
            CONTINUOUS,
            [{"reduction": r, "delta": 0.5} for r in ("mean", "sum", "none")],
        ),
        ("BCEWithLogitsLoss", CONTINUOUS, [{"reduction": r} for r in ("mean", "sum", "none")]),
        ("NLLLoss", LABELS, [{"reduction": r} for r in ("mean", "sum", "none")]),
        (
            "CrossEntropyLoss",
            LABELS,
            [
                {"reduction": r, "label_smoothing": s}
                for r in ("mean", "sum", "none")
                for s in (0.0, 0.2)
            ],
        ),
    )
    for options in table
}


def draw_input(layer: Layer) -> np.ndarray:
    x = np.random.default_rng(11).standard_normal(layer.shape)
    return np.where(abs(x) < 0.01, 0.5, x)


def double(layer: Layer) -> nn.Module:
    """The layer in float64 with parameters that differ from their defaults."""
    module = layer.make().double()
    draw = np.random.default_rng(12)
    for parameter in module.parameters():
        parameter.data += draw.uniform(-0.3, 0.3, parameter.shape)
    return module


@pytest.mark.parametrize("name", list(LAYERS))
def test_layer_equals_reference(name: str) -> None:
    module, x = double(LAYERS[name]), draw_input(LAYERS[name])
    y = module(tw.Tensor(x))
    np.testing.assert_allclose(
        y, LAYERS[name].reference(x, module.state_dict()), rtol=1e-12, atol=1e-14
    )


@pytest.mark.parametrize("name", list(LAYERS))
def test_layer_gradients_equal_finite_differences(name: str) -> None:
    module, x = double(LAYERS[name]), draw_input(LAYERS[name])
    owners = [
        (m, key)
        for m in module.modules()
        for key in m._parameters
        if m._parameters[key] is not None
    ]

    def f(x: Any, *values: Any) -> Any:
        for (owner, key), value in zip(owners, values, strict=True):
            owner._parameters[key] = value
        return module(x)

    arrays = [x, *[parameter.data.copy() for parameter in module.parameters()]]
    check_gradient(f, arrays)
    check_second_derivative(f, arrays)


@pytest.mark.parametrize("name", list(LAYERS))
def test_layer_on_arrays_without_grad_equals_layer_on_tensors(name: str) -> None:
    module = LAYERS[name].make().eval()
    x = draw_input(LAYERS[name]).astype(np.float32)
    with tw.no_grad():
        y = module(x)
    assert y.dtype == np.float32
    np.testing.assert_array_equal(np.asarray(y), module(tw.Tensor(x)).data)


def torch_twin(torch: Any, name: str) -> tuple[nn.Module, Any]:
    make = LAYERS[name].torch
    assert make is not None
    ours, theirs = double(LAYERS[name]), make(torch).double()
    theirs.load_state_dict({k: torch.tensor(v) for k, v in ours.state_dict().items()})
    return ours, theirs


torch_rows = pytest.mark.parametrize("name", [n for n, layer in LAYERS.items() if layer.torch])


@pytest.mark.torch
@torch_rows
def test_state_keys_order_shapes_and_dtypes_are_torchs(name: str) -> None:
    torch = pytest.importorskip("torch")
    make = LAYERS[name].torch
    assert make is not None
    ours, theirs = LAYERS[name].make().state_dict(), make(torch).state_dict()
    assert [(k, v.shape, str(v.dtype)) for k, v in ours.items()] == [
        (k, tuple(v.shape), str(v.dtype).removeprefix("torch.")) for k, v in theirs.items()
    ]


@pytest.mark.torch
@torch_rows
def test_layer_equals_torch_in_training_and_evaluation(name: str) -> None:
    torch = pytest.importorskip("torch")
    ours, theirs = torch_twin(torch, name)
    for step in range(3):
        if step == 2:
            ours.eval()
            theirs.eval()
        x = draw_input(LAYERS[name]) * (step + 1) + step
        mine = tw.tensor(x, requires_grad=True)
        their = torch.tensor(x, requires_grad=True)
        y, expected = ours(mine), theirs(their)
        np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-11, atol=1e-13)
        seed = np.sin(np.arange(y.numel())).reshape(y.shape)
        y.backward(seed)
        expected.backward(torch.tensor(seed))
        np.testing.assert_allclose(mine.grad, their.grad.numpy(), rtol=1e-10, atol=1e-12)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(p.grad, q.grad.numpy(), rtol=1e-10, atol=1e-12)
    for (key, b), c in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        np.testing.assert_allclose(b, c.numpy(), rtol=1e-12, err_msg=key)


@pytest.mark.torch
@pytest.mark.parametrize("name", list(LOSSES))
def test_loss_equals_torch(name: str) -> None:
    torch = pytest.importorskip("torch")
    ours, target, peer, options = LOSSES[name]
    x = np.random.default_rng(6).standard_normal((4, 3))
    mine, their = tw.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    loss = ours(mine, target)
    expected = getattr(torch.nn, peer)(**options)(their, torch.tensor(target))
    np.testing.assert_allclose(loss, expected.detach().numpy(), rtol=1e-13)
    (loss * 2).sum().backward()
    (expected * 2).sum().backward()
    np.testing.assert_allclose(mine.grad, their.grad.numpy(), rtol=1e-11, atol=1e-14)


def test_batchmean_sums_outputs_and_averages_samples() -> None:
    x, target = np.ones((4, 3)), np.zeros((4, 3))
    assert nn.MSELoss("batchmean")(x, target) == 3


@pytest.mark.parametrize("name", list(LOSSES))
def test_mean_of_shares_weighted_by_size_is_the_mean_of_the_batch(name: str) -> None:
    ours, target, _, options = LOSSES[name]
    if options["reduction"] == "none":
        return
    x = np.random.default_rng(7).standard_normal((4, 3))
    parts = [
        ours(x[s], target[s]) * (n / 4 if options["reduction"] == "mean" else 1)
        for s, n in ((slice(0, 1), 1), (slice(1, 4), 3))
    ]
    np.testing.assert_allclose(sum(parts), ours(x, target), rtol=1e-13)


# --- BatchNorm -----------------------------------------------------------------------------------
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
    shares = [slice(a, b) for a, b in zip(cuts, cuts[1:], strict=False)]

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


# --- Dropout -------------------------------------------------------------------------------------
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


# --- initial values ------------------------------------------------------------------------------
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


# --- the module system ---------------------------------------------------------------------------
def build(library: Any) -> Any:
    """A nested model with a shared layer, in our library or in torch."""
    shared = library.Linear(3, 3)
    return library.Sequential(
        library.Linear(3, 3),
        library.Sequential(shared, library.ReLU(), library.BatchNorm1d(3)),
        shared,
    )


@pytest.mark.torch
def test_traversal_and_state_of_nested_shared_modules_are_torchs() -> None:
    torch = pytest.importorskip("torch")
    ours, theirs = build(nn), build(torch.nn)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    assert [n for n, _ in ours.named_buffers()] == [n for n, _ in theirs.named_buffers()]
    assert [n for n, _ in ours.named_modules()] == [n for n, _ in theirs.named_modules()]
    names: tuple[list[str], list[str]] = ([], [])
    ours.apply(lambda m: names[0].append(type(m).__name__))
    theirs.apply(lambda m: names[1].append(type(m).__name__))
    assert names[0] == names[1]


@pytest.mark.torch
def test_torch_state_loads_and_gives_the_same_outputs() -> None:
    torch = pytest.importorskip("torch")
    ours, theirs = build(nn), build(torch.nn)
    ours.load_state_dict(theirs.state_dict())
    x = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    expected = theirs(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(ours(tw.Tensor(x)), expected, rtol=1e-5, atol=1e-6)


def test_modes_gradients_and_dtypes_reach_every_module() -> None:
    model = build(nn)
    assert all(m.training for m in model.modules())
    model.eval()
    assert not any(m.training for m in model.modules())
    model.train()
    model(tw.ones(4, 3)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    model.zero_grad(set_to_none=False)
    assert all(not p.grad.data.any() for p in model.parameters())
    model.zero_grad()
    assert all(p.grad is None for p in model.parameters())
    assert {p.dtype for p in model.double().parameters()} == {np.dtype(np.float64)}
    assert {str(b.dtype) for b in model.float().buffers()} == {"float32", "int64"}
    model.requires_grad_(False)
    assert not model(tw.ones(4, 3)).requires_grad


class Custom(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(np.ones(2, np.float32))
        self.register_parameter("shift", None)
        self.register_buffer("count", np.zeros(()))
        self.layers = nn.ModuleList([nn.Linear(2, 2), nn.ReLU()])
        self.note = "plain"

    def forward(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return x * self.scale


def test_attributes_are_registered_replaced_and_removed() -> None:
    module = Custom()
    assert list(module.state_dict()) == ["scale", "count", "layers.0.weight", "layers.0.bias"]
    module.scale = nn.Parameter(np.zeros(2, np.float32))
    module.shift = nn.Parameter(np.ones(1, np.float32))
    module.count = np.ones(())
    assert module.state_dict()["count"] == 1
    assert [name for name, _ in module.named_parameters()][:2] == ["scale", "shift"]
    del module.shift
    assert not hasattr(module, "shift")
    module.layers = None
    assert list(module.children()) == []
    with pytest.raises(TypeError, match="scale is a parameter, got float"):
        module.scale = 1.0
    with pytest.raises(AttributeError, match="Custom has no attribute 'absent'"):
        _ = module.absent


def test_a_copied_module_shares_nothing() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    twin = copy.deepcopy(model)
    twin(tw.ones(3, 2))
    twin[0].weight.data += 1
    assert model[1].num_batches_tracked == 0
    assert not np.array_equal(model[0].weight.data, twin[0].weight.data)
    assert len(list(twin.parameters())) == 4


def test_repr_shows_the_structure() -> None:
    assert repr(nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.ReLU()))) == (
        "Sequential(\n  (0): Linear(2, 3, bias=True)\n  (1): Sequential(\n    (0): ReLU()\n  )\n)"
    )


def test_sequential_is_indexed_sliced_and_extended() -> None:
    model = nn.Sequential({"first": nn.Linear(2, 3), "second": nn.ReLU()})
    assert len(model) == 2 and list(model)[1] is model[1]
    assert list(model.state_dict()) == ["first.weight", "first.bias"]
    part = model[:1]
    assert isinstance(part, nn.Sequential) and part[0] is model[0]
    model.append(nn.Linear(3, 1))
    assert model(tw.ones(4, 2)).shape == (4, 1)


def test_load_state_dict_copies_into_place() -> None:
    model, source = nn.Linear(2, 3), nn.Linear(2, 3)
    memory = model.weight.data
    assert model.load_state_dict(source.state_dict()) == ([], [])
    assert model.weight.data is memory
    np.testing.assert_array_equal(memory, source.weight.data)
    keys = model.load_state_dict({"weight": memory, "other": memory}, strict=False)
    assert keys == (["bias"], ["other"])


GOOD = {"weight": np.ones((3, 2), np.float32), "bias": np.ones(3, np.float32)}
LOAD_ERRORS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "missing": ({"weight": GOOD["weight"]}, KeyError, "missing.*bias"),
    "unexpected": ({**GOOD, "more": GOOD["bias"]}, KeyError, "unexpected.*more"),
    "shape": ({**GOOD, "bias": np.ones(4, np.float32)}, ValueError, r"bias.*\(3,\), got \(4,\)"),
    "dtype": ({**GOOD, "bias": np.ones(3)}, TypeError, "bias must be float32, got float64"),
}


@pytest.mark.parametrize("name", list(LOAD_ERRORS))
def test_a_refused_state_changes_nothing(name: str) -> None:
    state, kind, message = LOAD_ERRORS[name]
    model = nn.Linear(2, 3)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(kind, match=message):
        model.load_state_dict(state)
    for key, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[key])


# --- errors --------------------------------------------------------------------------------------
X = np.zeros((4, 3), np.float32)


class Forgetful(nn.Module):
    def __init__(self) -> None:
        self.layer = nn.ReLU()


ERRORS: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "Linear size": (lambda: nn.Linear(0, 3), ValueError, "in_features must be at least 1, got 0"),
    "Linear dtype": (lambda: nn.Linear(2, 3, dtype=np.float16), TypeError, "got float16"),
    "Linear input": (lambda: nn.Linear(2, 3)(X), ValueError, r"\(4, 3\)"),
    "Linear input dtype": (
        lambda: nn.Linear(3, 3)(X.astype(np.float64)),
        TypeError,
        "float64.*float32|float32.*float64",
    ),
    "BlockLinear groups": (
        lambda: nn.BlockLinear(5, 4, 2),
        ValueError,
        "in_features must be a multiple of groups=2, got 5",
    ),
    "BlockLinear input": (lambda: nn.BlockLinear(4, 4, 2)(X), ValueError, r"2 \* 2 = 4.*\(4, 3\)"),
    "BatchNorm size": (lambda: nn.BatchNorm1d(0), ValueError, "num_features.*got 0"),
    "BatchNorm eps": (lambda: nn.BatchNorm1d(1, eps=0), ValueError, "eps.*got 0"),
    "BatchNorm momentum": (lambda: nn.BatchNorm1d(1, momentum=2), ValueError, "momentum.*got 2"),
    "BatchNorm2d rank": (lambda: nn.BatchNorm2d(3)(X), ValueError, r"4 axes, got shape \(4, 3\)"),
    "LayerNorm size": (lambda: nn.LayerNorm(0), ValueError, "normalized_shape.*got 0"),
    "LayerNorm input": (lambda: nn.LayerNorm(4)(X), ValueError, r"\(?[34],?\)?"),
    "LeakyReLU slope": (lambda: nn.LeakyReLU(-1), ValueError, "negative_slope.*got -1"),
    "Dropout p": (lambda: nn.Dropout(1), ValueError, r"\[0, 1\), got 1"),
    "reduction": (lambda: nn.MSELoss("avg"), ValueError, "mean, sum, none, batchmean, got 'avg'"),
    "class reduction": (lambda: nn.NLLLoss("batchmean"), ValueError, "mean, sum, none, got"),
    "smoothing": (
        lambda: nn.CrossEntropyLoss(label_smoothing=2),
        ValueError,
        r"label_smoothing must be in \[0, 1\], got 2",
    ),
    "huber delta": (lambda: nn.HuberLoss(delta=0), ValueError, "delta must be positive, got 0"),
    "mse shapes": (lambda: nn.MSELoss()(X, X[0]), ValueError, r"\(4, 3\), got \(3,\)"),
    "mse empty": (lambda: nn.MSELoss()(X[:0], X[:0]), ValueError, r"shape \(0, 3\)"),
    "bce target": (lambda: nn.BCEWithLogitsLoss()(X, X + 2), ValueError, r"lie in \[0, 1\]"),
    "Concat": (lambda: nn.Concat(), ValueError, "at least one branch"),
    "Sequential": (lambda: nn.Sequential(3), TypeError, "0 must be a Module, got int"),
    "to cuda": (lambda: nn.Linear(1, 1).to("cuda"), RuntimeError, "'cpu'.*'cuda'"),
    "to int": (lambda: nn.Linear(1, 1).to(np.int32), TypeError, "got int32"),
    "forward": (lambda: nn.Module()(X), NotImplementedError, "does not define forward"),
    "super": (Forgetful, RuntimeError, r"super\(\).__init__\(\)"),
    "dotted name": (lambda: nn.Module().register_buffer("a.b", X), ValueError, "'a.b'"),
    "gain": (lambda: nn.init.calculate_gain("swish"), ValueError, "leaky_relu, got 'swish'"),
    "fans": (lambda: nn.init.xavier_normal_(tw.ones(3)), ValueError, r"2 axes, got shape \(3,\)"),
    "mode": (
        lambda: nn.init.kaiming_normal_(tw.ones(3, 3), mode="in"),
        ValueError,
        "'fan_in' or 'fan_out', got 'in'",
    ),
    "sparsity": (lambda: nn.init.sparse_(tw.ones(3, 3), 2), ValueError, "got 2"),
}


@pytest.mark.parametrize("name", list(ERRORS))
def test_errors_name_what_was_expected_and_what_came(name: str) -> None:
    call, kind, message = ERRORS[name]
    with pytest.raises(kind, match=message):
        call()


BAD_LABELS: dict[str, tuple[Any, type[Exception], str]] = {
    "too large": (np.array([0, 1, 3, 0]), ValueError, r"\[0, 3\), got 3 at position 2"),
    "negative": (np.array([0, -1, 2, 0]), ValueError, r"\[0, 3\), got -1 at position 1"),
    "floats": (np.zeros(4), TypeError, "integers, got float64"),
    "tensor": (tw.zeros(4), TypeError, "class indices, got a float tensor"),
    "too few": (np.array([0, 1]), ValueError, r"\(4,\), got \(2,\)"),
    "one-hot": (np.eye(4, 3, dtype=np.int64), ValueError, r"\(4,\), got \(4, 3\)"),
}


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), nn.NLLLoss()], ids=repr)
@pytest.mark.parametrize("name", list(BAD_LABELS))
def test_labels_outside_the_classes_are_refused(loss: nn.Module, name: str) -> None:
    target, kind, message = BAD_LABELS[name]
    with pytest.raises(kind, match=message):
        loss(tw.Tensor(X, requires_grad=True), target)
