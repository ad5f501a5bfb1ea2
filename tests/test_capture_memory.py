"""Where a plan's memory is: shared by lifetime, arguments read in place, results apart."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import thalweg as tw
from thalweg import nn

X = np.random.default_rng(0).standard_normal((4, 16, 12)).astype(np.float32)
LABELS = np.random.default_rng(1).integers(0, 3, (4, 16))


def captured(layers: int = 6, **returned: Any) -> tuple[Any, nn.Module]:
    tw.manual_seed(0)
    hidden = [nn.Sequential(nn.Linear(12, 12), nn.Tanh()) for _ in range(layers)]
    model = nn.Sequential(*hidden, nn.Linear(12, 3))
    opt = tw.optim.Adam(model.parameters())

    def step(x: Any, y: Any) -> Any:
        opt.zero_grad()
        loss = tw.functional.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        return (loss, *(f(x) for f in returned.values()))

    return tw.capture(step), model


def test_arrays_that_are_not_alive_together_share_memory() -> None:
    sizes = []
    for layers in (2, 12):
        call, _ = captured(layers)
        for x, y in zip(X, LABELS, strict=True):
            call(x, y)
        assert call.replays == 2
        plan = call._plans[0].plan
        sizes.append((plan.made_bytes, plan.arena_bytes))
    (few_made, few), (many_made, many) = sizes
    assert many < many_made / 2
    # A layer more needs room for what its backward looks at, not for what passes through it.
    assert (many - few) < (many_made - few_made) / 2


def test_arguments_of_any_address_and_alignment_are_read() -> None:
    call, model = captured()
    same, other = captured()
    buffer = np.zeros(X[0].nbytes + 1, np.uint8)
    askew = buffer[1:].view(np.float32).reshape(X[0].shape)
    for i in range(12):
        x, y = X[i % 4].copy(), LABELS[i % 4].astype(np.int32 if i >= 6 else np.int64)
        askew[...] = x
        (a,), (b,) = call(askew if i % 3 == 1 else x, y), same._function(x.copy(), y)
        assert a.item() == b.item()
    assert call.replays == 12 - 4
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert p.data.tobytes() == q.data.tobytes()


LAYOUTS: dict[str, Any] = {
    "columns first": np.asfortranarray,
    "backwards": lambda a: a[::-1].copy()[::-1],
    "every other": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "part": lambda a: np.concatenate([a, a], axis=-1)[..., : a.shape[-1]],
    "one for all": lambda a: np.broadcast_to(a[:1].copy(), a.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_arguments_of_any_layout_are_read(layout: Any) -> None:
    call, _ = captured(layers=1)
    _, model = captured(layers=1)
    opt = tw.optim.Adam(model.parameters())
    for x, y in zip([*X, *X], [*LABELS, *LABELS], strict=True):
        (loss,) = call(layout(x), layout(y))
        opt.zero_grad()
        expected = tw.functional.cross_entropy(model(layout(x)), layout(y))
        expected.backward()
        opt.step()
        assert loss.item() == expected.item()
    assert call.replays == 6


def test_an_argument_that_is_returned_is_the_one_of_the_call() -> None:
    call, _ = captured(same=lambda x: tw.Tensor(x).reshape(-1))
    for x, y in zip(X, LABELS, strict=True):
        _, returned = call(x, y)
        assert returned.data.tobytes() == x.tobytes()
        assert not np.may_share_memory(returned.data, x)


def test_results_and_gradients_outlive_the_next_replay_and_the_plan() -> None:
    call, model = captured(twice=lambda x: tw.Tensor(x) * 2)
    results = [call(x, y)[1] for x, y in zip(X, LABELS, strict=True)]
    for x, result in zip(X, results, strict=True):
        assert result.data.tobytes() == (x * 2).tobytes()
    grads = [p.grad.data for p in model.parameters()]
    copies = [g.copy() for g in grads]
    del call
    for grad, copy in zip(grads, copies, strict=True):
        assert grad.tobytes() == copy.tobytes()


def test_a_replay_from_two_threads_at_once_is_refused() -> None:
    """Launches point into memory of the plan: a second replay would write under the first one."""
    call, _ = captured(layers=60)
    for x, y in zip(X, LABELS, strict=True):
        call(x, y)
    plan, errors, stop = call._plans[0].plan, [], threading.Event()

    def replay() -> None:
        try:
            while not stop.is_set():
                plan.run([X[0], LABELS[0]])
        except RuntimeError as error:
            errors.append(str(error))
            stop.set()

    threads = [threading.Thread(target=replay) for _ in range(2)]
    for thread in threads:
        thread.start()
    stop.wait(20)
    stop.set()
    for thread in threads:
        thread.join()
    assert errors and "another thread" in errors[0]


COUNTING = """
import ctypes
import numpy as np
import thalweg as tw
from thalweg import nn

tw.set_num_threads(2)
layers = [nn.Linear(300, 200), nn.BatchNorm1d(200), nn.ReLU(), nn.Linear(200, 150), nn.Sigmoid()]
layers += [nn.BatchNorm1d(150), nn.Linear(150, 10)]
model = nn.Sequential(*layers)
opt = tw.optim.Adam(model.parameters())

def step(x, y):
    loss = tw.functional.cross_entropy(model(tw.Tensor(x)), y)
    loss.backward()
    opt.step()
    opt.zero_grad()
    return loss

call = tw.capture(step)
x, y = np.ones((128, 300), np.float32), np.arange(128) % 10
for _ in range(6):
    call(x, y)
run, count = call._plans[0].plan.run, ctypes.CDLL(None).allocations
arguments = [x, y]
before = count()
for _ in range(200):
    run(arguments)
print(count() - before)
"""


@pytest.mark.unsanitized
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_replays_allocate_nothing(tmp_path: Path) -> None:
    shim = tmp_path / "count_allocations.so"
    source = Path(__file__).with_name("count_allocations.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", shim, source], check=True)
    environment = os.environ | {"LD_PRELOAD": str(shim)}
    command = [sys.executable, "-c", COUNTING]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert int(done.stdout) == 0
