"""Losses equal PyTorch, split over shares, and refuse labels outside the classes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

import thalweg as tw
from thalweg import nn

LABELS = np.array([2, 0, 1, 1])


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


@pytest.mark.parametrize("name", [n for n in LOSSES if "'none'" not in n])
def test_mean_of_shares_weighted_by_size_is_the_mean_of_the_batch(name: str) -> None:
    ours, target, _, options = LOSSES[name]
    x = np.random.default_rng(7).standard_normal((4, 3))
    parts = [
        ours(x[s], target[s]) * (n / 4 if options["reduction"] == "mean" else 1)
        for s, n in ((slice(0, 1), 1), (slice(1, 4), 3))
    ]
    np.testing.assert_allclose(sum(parts), ours(x, target), rtol=1e-13)


X = np.zeros((4, 3), np.float32)
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


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.uint64])
def test_labels_may_be_integers_of_any_width(dtype: type) -> None:
    logits, target = np.eye(3, dtype=np.float32), np.array([0, 2, 1])
    expected = tw.cross_entropy(logits, target)
    assert tw.cross_entropy(logits, target.astype(dtype)) == expected
