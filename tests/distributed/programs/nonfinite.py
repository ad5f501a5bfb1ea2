"""nonfinite.py: a gradient with Inf on one rank makes every rank skip the same step."""

from __future__ import annotations

import numpy as np

import thalweg as tw
from thalweg import nn
from thalweg.distributed import DataParallel, world

comm = world()
model = nn.Linear(3, 2)
scaler = tw.optim.GradScaler(growth_interval=2)
dp = DataParallel(model, tw.optim.Adam(model.parameters(), lr=0.1), comm)
scales = []
for step in range(5):
    x = np.ones((4, 3), np.float32)
    if step == 1 and comm.rank == comm.size - 1:
        x[0, 0] = np.inf
    before = [p.data.copy() for p in model.parameters()]
    loss = dp(tw.tensor(x)).square().mean()
    dp.backward(scaler.scale(loss), 1 / comm.size)
    taken = scaler.step(dp, zero_grad=True)
    scaler.update()
    scales.append(scaler.get_scale())
    same = [np.array_equal(a, p.data) for a, p in zip(before, model.parameters(), strict=True)]
    assert same == [not taken] * 2, (step, same)
    assert taken == (step != 1)
assert scales == [65536.0, 32768.0, 32768.0, 65536.0, 65536.0], scales
weights = comm.allgather([p.data.tobytes() for p in model.parameters()])
assert all(other == weights[0] for other in weights)
