"""The networks: their published counts, PyTorch's results, training, and what they are good for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import thalweg as tw
from thalweg import analysis, networks, nn
from thalweg.analysis.counts import GOOGLENET_PAPER, table
from thalweg.cli import main

PARAMETERS = {
    "lenet": 800 + 64 + 51_200 + 128 + 401_408 + 256 + 1_290,
    "alexnet": 60_965_224,
    "googlenet": 6_998_552,
    "resnet18": 11_689_512,
}


def drawn(name: str, samples: int) -> tuple[Any, Any]:
    _, shape = networks.NETWORKS[name]
    rng = np.random.default_rng(0)
    return rng.standard_normal((samples, *shape), np.float32), rng.integers(0, 10, samples)


@pytest.mark.parametrize("name", list(PARAMETERS))
def test_parameters_are_the_published_number(name: str) -> None:
    build, _ = networks.NETWORKS[name]
    assert sum(p.numel() for p in build().parameters()) == PARAMETERS[name]


def test_googlenet_table_beside_the_papers() -> None:
    """Table 1 of the paper. It differs where it cannot be: 7 x 7 x 3 x 64 weights are 9408."""
    rows = {row.name: row for row in analysis.counts(networks.googlenet(), (3, 224, 224))}
    assert rows["conv1"].weights == 9408
    assert rows["conv1"].operations == 9408 * 112 * 112
    assert rows["conv1"].window == "7x7/2"
    assert rows["conv2"].depth == rows["inception3a"].depth == 2
    differ = set()
    for name, (weights, operations) in GOOGLENET_PAPER.items():
        if rows[name].weights / 1024 != pytest.approx(float(weights[:-1]), rel=0.035):
            differ.add((name, "weights"))
        if rows[name].operations / 1e6 != pytest.approx(float(operations[:-1]), rel=0.035):
            differ.add((name, "operations"))
    first = {("conv1", "weights"), ("conv1", "operations"), ("inception4c", "weights")}
    assert differ == first | {("inception5a", "weights"), ("inception5a", "operations")}
    outputs = ["64x112x112", "64x56x56", "192x56x56", "192x28x28", "256x28x28", "480x28x28"]
    assert ["x".join(map(str, row.output)) for row in rows.values()][:6] == outputs
    assert rows["inception5b"].output == (1024, 7, 7)
    line = table(list(rows.values()), GOOGLENET_PAPER).splitlines()[1].split()
    assert line[:5] == ["conv1", "Conv2d", "7x7/2", "112x112x64", "1"]
    assert line[5:] == ["9,408", "2.7K", "*", "64", "118.0", "M", "34M", "*"]


def test_counts_leave_the_model_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5).eval(), nn.BatchNorm1d(3))
    state = {key: value.copy() for key, value in model.state_dict().items()}
    (linear, _, norm) = analysis.counts(model, (4,))
    assert (linear.weights, linear.others, linear.operations) == (12, 3, 12)
    assert (norm.weights, norm.others, norm.operations) == (0, 6, 0)
    assert [m.training for m in model.modules()] == [True, True, False, True]
    assert "forward" not in model.__dict__
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(value, state[key])


def test_info_prints_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "lenet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["layer", "type", "window"]
    assert lines[1].split()[:4] == ["0", "Conv2d", "5x5/1", "28x28x32"]


@pytest.mark.unsanitized
@pytest.mark.parametrize("name", list(networks.NETWORKS))
def test_training_steps_reduce_the_loss(name: str) -> None:
    tw.manual_seed(0)
    build, _ = networks.NETWORKS[name]
    model = build(10)
    samples = 2 if name in ("alexnet", "googlenet", "resnet18") else 8
    x, y = drawn(name, samples)
    optimizer = tw.optim.SGD(model.parameters(), lr=0.01)
    losses = []
    for _ in range(3):
        loss = tw.cross_entropy(model(tw.Tensor(x)), y)
        loss.backward()
        assert all(np.isfinite(p.grad.data).all() for p in model.parameters())
        optimizer.step(zero_grad=True)
        losses.append(loss.item())
    assert np.isfinite(losses).all()
    if name not in ("alexnet", "googlenet"):  # whose dropout hides three small steps
        assert losses[-1] < losses[0]


def test_auxiliary_classifiers_have_the_papers_shapes_and_leave_the_network_as_it_is() -> None:
    model, plain = networks.googlenet(10, auxiliary=True), networks.googlenet(10)
    for head, channels in ((model.aux1, 512), (model.aux2, 528)):
        expected = channels * 128 + 128 + 2048 * 1024 + 1024 + 1024 * 10 + 10
        assert sum(p.numel() for p in head.parameters()) == expected
    missed = plain.load_state_dict(model.state_dict(), strict=False)
    assert not missed.missing_keys
    assert all(key.startswith(("aux1.", "aux2.")) for key in missed.unexpected_keys)
    x = tw.Tensor(drawn("googlenet", 1)[0])
    np.testing.assert_array_equal(model.eval()(x).data, plain.eval()(x).data)
    shape = (3, 224, 224)
    assert analysis.counts(model, shape) == analysis.counts(plain, shape)


@pytest.mark.unsanitized
def test_a_step_on_all_three_losses_of_googlenet_lowers_them() -> None:
    tw.manual_seed(0)
    model, criterion = networks.googlenet(10, auxiliary=True), networks.AuxiliaryLoss()
    optimizer = tw.optim.SGD(model.parameters(), lr=0.003)
    x, y = drawn("googlenet", 2)

    def losses() -> tuple[Any, list[float]]:
        tw.manual_seed(1)  # the same dropout before and after the step
        outputs = model(tw.Tensor(x))
        assert isinstance(outputs, networks.GoogLeNetOutputs)
        assert all(logits.shape == (2, 10) for logits in outputs)
        return criterion(outputs, y), [tw.cross_entropy(logits, y).item() for logits in outputs]

    loss, (main_loss, aux2, aux1) = losses()
    assert loss.item() == pytest.approx(main_loss + 0.3 * (aux1 + aux2), rel=1e-6)
    loss.backward()
    assert all(np.abs(p.grad.data).max() > 0 for p in model.parameters())
    optimizer.step()
    assert losses()[0].item() < loss.item()
    logits = model.eval()(tw.Tensor(x))
    assert criterion(logits, y).item() == tw.cross_entropy(logits, y).item()


def test_captured_inception_and_residual_steps_equal_define_by_run() -> None:
    def run(build: Any, captured: bool) -> list[bytes]:
        tw.manual_seed(0)
        model = build()
        optimizer = tw.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

        def step(x: Any, y: Any) -> Any:
            loss = tw.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step(zero_grad=True)
            return loss

        call = tw.capture(step) if captured else step
        for seed in range(4):
            rng = np.random.default_rng(seed)
            x = rng.standard_normal((4, 3, 32, 32), np.float32)
            call(tw.Tensor(x), rng.integers(0, 10, 4))
        return [a.tobytes() for a in model.state_dict().values()]

    for build in (networks.small_inception, networks.residual_net):
        assert run(build, True) == run(build, False)


@pytest.mark.parametrize("build", [networks.small_inception, networks.residual_net])
def test_channels_last_runs_through_and_agrees_with_planes(build: Any) -> None:
    def run(last: bool) -> tuple[list[np.ndarray], list[bool]]:
        tw.manual_seed(0)
        model = build().double()
        x = np.random.default_rng(0).standard_normal((4, 3, 32, 32))
        if last:
            x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
        layouts, y = [], tw.Tensor(x)
        for layer in model:
            y = layer(y)
            layouts.append(y.data.ndim == 4 and y.data.strides[1] == y.data.itemsize)
        tw.cross_entropy(y, np.arange(4)).backward()
        return [y.data, *[p.grad.data for p in model.parameters()]], layouts

    (expected, planes), (got, last) = run(False), run(True)
    for a, b in zip(expected, got, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-8, atol=1e-12)
    images = [layer for layer in last if layer]
    assert not any(planes[:-3]) and len(images) >= len(last) - 3


def train(model: nn.Module, splits: Any, samples: int, epochs: int, lr: float) -> float:
    """Test accuracy after Adam on the first `samples` in batches of 64; the rate falls to 0."""
    optimizer = tw.optim.Adam(model.parameters(), lr=lr)
    steps = samples // 64
    schedule = tw.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, epochs * steps)

    def update(x: Any, y: Any) -> Any:
        loss = tw.cross_entropy(model(tw.Tensor(x)), y)
        loss.backward()
        optimizer.step(zero_grad=True)
        return loss

    step = tw.capture(update)
    rng = np.random.default_rng(0)
    for _ in range(epochs):
        order = rng.permutation(samples)
        for i in range(steps):
            index = order[64 * i : 64 * (i + 1)]
            step(splits.train.x[index], splits.train.y[index])
            schedule.step()
    model.eval()
    right = 0
    with tw.no_grad():
        for i in range(0, len(splits.test), 1000):
            logits = model(tw.Tensor(splits.test.x[i : i + 1000]))
            right += int((logits.data.argmax(1) == splits.test.y[i : i + 1000]).sum())
    return right / len(splits.test)


def train_lenet(folder: Path, samples: int, epochs: int) -> float:
    tw.manual_seed(0)
    splits = tw.data.mnist(folder / "mnist", validation=0, flatten=False)
    return train(networks.lenet(), splits, samples, epochs, 2e-3)


@pytest.mark.unsanitized
def test_lenet_learns_mnist_from_few_samples(data_directory: Path) -> None:
    assert train_lenet(data_directory, 4096, 2) >= 0.955


@pytest.mark.slow
def test_lenet_reaches_98_8_percent_in_three_epochs(data_directory: Path) -> None:
    assert train_lenet(data_directory, 60000, 3) >= 0.988


def train_cifar10(folder: Path, model: nn.Module, flatten: bool, epochs: int, lr: float) -> float:
    """On the 10 000 training images that are at hand."""
    splits = tw.data.cifar10(folder / "cifar-10-batches-bin", validation=0, flatten=flatten)
    return train(model, splits, len(splits.train), epochs, lr)


@pytest.mark.slow
def test_two_residual_blocks_on_cifar10(data_directory: Path) -> None:
    tw.manual_seed(0)
    assert train_cifar10(data_directory, networks.residual_net(), False, 4, 3e-3) >= 0.5


@pytest.mark.slow
def test_a_hundred_hidden_units_on_cifar10(data_directory: Path) -> None:
    tw.manual_seed(0)
    layers = [nn.Linear(3072, 100), nn.BatchNorm1d(100), nn.ReLU(), nn.Linear(100, 10)]
    assert train_cifar10(data_directory, nn.Sequential(*layers), True, 10, 1e-3) >= 0.42
