"""Every operation in a captured step has define-by-run's bits, or is refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import thalweg as tw
from functional_table import OPS
from thalweg import nn

STEPS = 6
REFUSED = {
    "mask": "indexing with an array",
    "repeated rows": "indexing with an array",
    "bce": "check_probabilities reads an array",  # its target comes from NumPy
}

X = np.random.default_rng(0).standard_normal((STEPS, 8, 4)).astype(np.float32)
X[:, 0] = 0  # ties, and a norm of 0
X[:, 1, :2] = X[:, 1, 2:]


def train(step: Any, model: nn.Module, inputs: Any, captured: bool) -> list[bytes]:
    call = tw.capture(step) if captured else step
    losses = [call(x).data.tobytes() for x in inputs]
    assert not captured or call.replays == len(inputs) - 2
    return losses + [p.data.tobytes() for p in model.parameters()]


class Arguments(nn.Module):
    """An operation's inputs as parameters."""

    def __init__(self, op: Any) -> None:
        super().__init__()
        generator = np.random.default_rng(1)
        for i, shape in enumerate(op.shapes):
            values = generator.uniform(op.low, op.high, shape).astype(np.float32)
            setattr(self, f"x{i}", nn.Parameter(np.asarray(values)))

    def forward(self) -> Any:
        return [p * 1.0 for p in self._parameters.values()]


def run_operation(name: str, captured: bool) -> list[bytes]:
    op = OPS[name]
    model = Arguments(op)
    opt = tw.optim.SGD(model.parameters(), lr=1e-3)

    def step(weight: Any) -> Any:
        opt.zero_grad()
        y = op.f(*model())
        loss = (y * y).sum() * tw.Tensor(weight)
        loss.backward()
        opt.step()
        return loss

    return train(step, model, np.linspace(0.5, 1, STEPS, dtype=np.float32).reshape(-1, 1), captured)


@pytest.mark.parametrize("name", [name for name in OPS if name not in REFUSED])
def test_every_operation_has_the_bits_of_define_by_run(name: str) -> None:
    assert run_operation(name, True) == run_operation(name, False)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_named(name: str) -> None:
    with pytest.raises(tw.CaptureError, match=REFUSED[name]):
        run_operation(name, True)


def masked(x: Any) -> Any:
    return tw.functional.where(x > 0.1, x, x * 0.5)


def compared(x: Any) -> Any:
    y = x
    for condition in (x >= 0.5, x < -0.5, x <= 0, x == 0, x != x):
        y = tw.functional.where(condition, y * 2, y)
    return y


def assigned(x: Any) -> Any:
    scratch = tw.functional.copy(x.detach())
    scratch[1:, ::2] = 0.5
    scratch[0] = x.detach()[1]
    scratch.clamp_(-1, 1)
    return x * scratch


@pytest.mark.parametrize(
    "function",
    [
        masked,
        compared,
        assigned,
        lambda x: x.clamp(max=0.3),
        lambda x: x.max(0),
        lambda x: x.min(),
        lambda x: x.norm(1),
        lambda x: tw.functional.logsumexp(x, 0),
        lambda x: x[1:, ::2],
        lambda x: x[3],
        lambda x: x.double().sum(1),
        lambda x: (x * x) ** (x * 0.5),
    ],
)
def test_choices_and_extremes_follow_their_values(function: Any) -> None:
    """Where masks differ from step to step, with ties and zeros."""

    def run(captured: bool) -> list[bytes]:
        tw.manual_seed(0)
        model = nn.Linear(4, 4)
        opt = tw.optim.SGD(model.parameters(), lr=0.5)

        def step(x: Any) -> Any:
            opt.zero_grad()
            loss = function(model(tw.Tensor(x))).square().sum()
            loss.backward()
            opt.step()
            return loss

        return train(step, model, X, captured)

    assert run(True) == run(False)


def test_a_choice_keeps_every_bit() -> None:
    """Signed zeros, infinities and NaN are chosen as NumPy chooses them."""
    special = np.float32([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, -3])
    a, b = (grid.ravel().copy() for grid in np.meshgrid(special, special))
    first = np.arange(a.size) % 2 == 0

    def step(a: Any, b: Any, first: Any) -> Any:
        return tw.functional.where(first, tw.Tensor(a), tw.Tensor(b))

    call = tw.capture(step)
    for shift in range(4):
        condition = np.roll(first, shift)
        expected = np.where(condition, a, b)
        assert call(a, b, condition).data.tobytes() == expected.tobytes()
    assert call.replays == 2


def test_schedules_are_stepped_in_replays() -> None:
    """Before and after the optimizer's step; the schedule's own state goes on too."""

    def run(captured: bool, first: bool) -> list[Any]:
        tw.manual_seed(0)
        model = nn.Linear(4, 2)
        opt = tw.optim.Adam(model.parameters(), lr=0.1)
        schedule = tw.optim.lr_scheduler.StepLR(opt, 2, gamma=0.5)

        def step(x: Any) -> Any:
            opt.zero_grad()
            loss = model(tw.Tensor(x)).square().mean()
            loss.backward()
            if first:
                schedule.step()
            opt.step()
            if not first:
                schedule.step()
            return loss

        bits = train(step, model, X, captured)
        return [*bits, schedule.last_epoch, schedule.get_last_lr(), opt.param_groups[0]["lr"]]

    for first in (True, False):
        assert run(True, first) == run(False, first)
