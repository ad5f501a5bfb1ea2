"""A small classification task and its trainers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import thalweg as tw
from thalweg.callbacks import Callback
from thalweg.data import ArrayDataset
from thalweg.history import History, Record
from thalweg.trainer import Trainer

FEATURES, CLASSES = 6, 3


def blobs(samples: int, seed: int = 0) -> ArrayDataset:
    """Overlapping Gaussian clouds, one per class."""
    generator = np.random.default_rng(seed)
    y = generator.integers(0, CLASSES, samples)
    centres = np.random.default_rng(99).normal(0, 1.5, (CLASSES, FEATURES))
    return ArrayDataset((centres[y] + generator.normal(size=(samples, FEATURES))).astype("f4"), y)


TRAIN, VALIDATION = blobs(90), blobs(40, seed=1)


def net(*, dropout: float = 0.0) -> tw.nn.Module:
    tw.manual_seed(5)
    layers = [tw.nn.Linear(FEATURES, 8), tw.nn.BatchNorm1d(8), tw.nn.ReLU()]
    if dropout:
        layers.append(tw.nn.Dropout(dropout))
    return tw.nn.Sequential(*layers, tw.nn.Linear(8, CLASSES))


Schedule = Callable[[Any], Any]


def trainer(
    *callbacks: Callback, dropout: float = 0.0, scheduler: Schedule | None = None, **options: Any
) -> Trainer:
    model = net(dropout=dropout)
    optimizer = tw.optim.Adam(model.parameters(), lr=0.01)
    schedule = None if scheduler is None else scheduler(optimizer)
    loss = tw.nn.CrossEntropyLoss()
    return Trainer(model, loss, optimizer, schedule, callbacks, **options)


def weights(run: Trainer) -> dict[str, np.ndarray]:
    return {name: array.copy() for name, array in run.model.state_dict().items()}


def assert_same_weights(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].tobytes() == b[name].tobytes(), name


def without_times(history: History) -> list[Record]:
    return [
        {k: v for k, v in record.items() if k not in ("seconds", "samples_per_second")}
        for record in history
    ]
