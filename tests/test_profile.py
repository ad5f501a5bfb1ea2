"""Profiles name operations, count their work, and see replays as they see define-by-run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import thalweg as tw


def test_operations_are_named_and_counted() -> None:
    a, b = np.ones((4, 8), np.float32), np.ones((8, 2), np.float32)
    with tw.profile() as p:
        tw.add(tw.matmul(a, b), 1)
        tw.softmax(a)
        tw.sum(a)
    assert [event.name for event in p.events] == ["matmul", "add", "softmax", "sum"]
    product = p.events[0]
    assert (product.flops, product.bytes) == (2 * 4 * 8 * 2, 4 * (32 + 16 + 8))
    assert all(event.seconds > 0 for event in p.events)
    starts = [event.start for event in p.events]
    assert starts == sorted(starts)


def test_table_and_trace(tmp_path: Path) -> None:
    x = np.ones((64, 64), np.float32)
    with tw.profile() as p:
        for _ in range(3):
            tw.matmul(x, x)
        tw.relu(x)
    assert {row.name: row.calls for row in p.rows()} == {"matmul": 3, "relu": 1}
    assert all(row.limit > 0 for row in p.rows())
    assert "matmul" in p.table()
    p.chrome_trace(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert [event["name"] for event in events] == ["matmul"] * 3 + ["relu"]


def test_a_replay_has_the_launches_of_the_step() -> None:
    model = tw.nn.Sequential(tw.nn.Linear(4, 3), tw.nn.ReLU())
    opt = tw.optim.SGD(model.parameters(), lr=0.1)

    def step(x: Any) -> Any:
        opt.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        opt.step()
        return loss

    x, call = tw.ones(5, 4), tw.capture(step)
    profiles = []
    for run in (step, call, call, call):
        with tw.profile() as p:
            run(x)
        profiles.append([event.name for event in p.events])
    assert call.replays == 1
    assert profiles[0] == profiles[1] == profiles[3]
    assert profiles[0][-1] == "optimizer_step"


def test_profiles_do_not_nest() -> None:
    with tw.profile(), pytest.raises(RuntimeError, match="profiled or recorded already"):
        tw.profile().__enter__()
