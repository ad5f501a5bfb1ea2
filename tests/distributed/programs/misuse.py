"""misuse.py HOW: what would hang or train something else, were it not refused."""

from __future__ import annotations

import sys

import thalweg as tw
from thalweg import nn
from thalweg.distributed import DataParallel, world

if __name__ == "__main__":
    how, comm = sys.argv[1], world()
    model = nn.Linear(3, 2 + comm.rank if how == "models" else 2)
    if how == "data":
        samples = 20 + comm.rank
        trainer = tw.Trainer(model, nn.MSELoss(), tw.optim.SGD(model.parameters(), lr=0.1))
        trainer.fit((tw.ones(samples, 3).data, tw.ones(samples, 2).data), epochs=1, batch_size=7)
    dp = DataParallel(model, tw.optim.SGD(model.parameters(), lr=0.1), comm)
    for _ in range(2):
        dp.backward(dp(tw.ones(4, 3)).mean(), 0.5)
