"""Numbers and objects around a step's function: what changes there is never stale."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import thalweg as tw
from thalweg import nn

X = np.random.default_rng(0).standard_normal((4, 8, 5)).astype(np.float32)

FACTOR = 1.0


def scaled(value: Any) -> Any:
    return value * FACTOR


class Annealed:
    """A loss whose weight is set from outside."""

    def __init__(self) -> None:
        self.beta = 1.0
        self.schedule = [1.0, 2.0]
        self.inner = None

    def weight(self) -> float:
        return self.beta

    @property
    def rate(self) -> float:
        return self.schedule[0]

    def __call__(self, y: Any) -> Any:
        return y.square().mean() * self.weight() * self.rate


class Scaled(nn.Module):
    def forward(self, x: Any) -> Any:
        return scaled(x)


def steps_of(loss: Callable[[Any], Any]) -> tuple[Any, Any]:
    """The step on two equal models: captured and not."""

    def make() -> Any:
        tw.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 4), Scaled())
        opt = tw.optim.SGD(model.parameters(), lr=0.1)

        def step(x: Any) -> Any:
            opt.zero_grad()
            value = loss(model(x))
            value.backward()
            opt.step()
            return value

        return step

    return tw.capture(make()), make()


def agree(captured: Any, plain: Any, times: int = 4) -> None:
    for x in X[:times]:
        assert captured(x).item() == plain(x).item()


@pytest.mark.parametrize("change", ["global", "attribute", "list", "partial's object", "cell"])
def test_a_number_that_changes_later_is_recorded_anew(change: str, monkeypatch: Any) -> None:
    loss, power = Annealed(), 1.0

    def with_cell(y: Any) -> Any:
        return loss(y) * power

    given = functools.partial(with_cell) if change == "partial's object" else with_cell
    captured, plain = steps_of(given)
    agree(captured, plain)
    assert captured.replays == 2
    if change == "global":
        monkeypatch.setattr(f"{__name__}.FACTOR", 3.0)
    elif change == "list":
        loss.schedule[0] = 3.0
    elif change == "cell":
        power = 3.0
    else:
        loss.beta = 3.0
    agree(captured, plain)
    assert captured.replays == 4


def test_an_object_that_is_replaced_is_recorded_anew() -> None:
    losses = {"now": Annealed()}

    def by_key(y: Any) -> Any:
        return losses["now"](y)

    captured, plain = steps_of(by_key)
    agree(captured, plain)
    losses["now"] = Annealed()
    losses["now"].beta = 5.0
    agree(captured, plain)


def test_a_number_in_slots_or_a_deque_is_recorded_anew() -> None:
    class Slotted:
        __slots__ = ("beta", "queue")

    weights = Slotted()
    weights.beta, weights.queue = 1.0, deque([2.0])
    captured, plain = steps_of(lambda y: y.square().mean() * weights.beta * weights.queue[0])
    agree(captured, plain)
    weights.beta = 3.0
    agree(captured, plain)
    weights.queue[0] = 5.0
    agree(captured, plain)
    assert captured.replays == 6


@pytest.mark.parametrize("fills", [False, True])
def test_an_optimizer_in_a_dictionary_is_replaced(fills: bool) -> None:
    ends = []
    for run in (tw.capture, lambda step: step):
        weight = nn.Parameter(np.ones((5, 4), np.float32))
        using: dict[str, Any] = {"opt": tw.optim.SGD([weight], lr=0.1)}

        def step(x: Any, weight: Any = weight, using: dict[str, Any] = using) -> Any:
            using["opt"].zero_grad()
            loss = (x @ weight).square().mean()
            loss.backward()
            using["opt"].step()
            if fills:
                using["last"] = loss
            return loss

        call = run(step)
        for x in (*X, *X):
            call(x)
        using["opt"] = tw.optim.Adam([weight], lr=0.1)
        for x in X:
            call(x)
        ends.append(weight.data.tobytes())
    assert ends[0] == ends[1]


def test_a_counter_in_an_object_is_refused_by_name() -> None:
    class Counting(Annealed):
        def __call__(self, y: Any) -> Any:
            self.beta += 1
            return super().__call__(y)

    captured, _ = steps_of(Counting())
    with pytest.raises(tw.CaptureError, match=r"'Counting.beta' in Python, which was 1\.0"):
        for x in X:
            captured(x)


def test_a_model_that_is_replaced_is_not_trained_any_more() -> None:
    tw.manual_seed(0)
    model = first = nn.Linear(5, 4)

    def loss(x: Any) -> Any:
        value = model(x).square().mean()
        value.backward()
        return value

    captured = tw.capture(loss)
    for x in X:
        captured(x)
    before = first.weight.grad.data.copy()
    model = nn.Linear(5, 4)
    for x in X:
        assert captured(x).item() == model(x).square().mean().item()
    assert first.weight.grad.data.tobytes() == before.tobytes()
