"""misuse.py HOW: what would hang or train something else, were it not refused."""

from __future__ import annotations

import sys

import thalweg as tw
from thalweg import nn
from thalweg.distributed import DataParallel, world

if __name__ == "__main__":
    how, comm = sys.argv[1], world()
    model = nn.Linear(3, 2 + comm.rank if how == "models" else 2)
    dp = DataParallel(model, tw.optim.SGD(model.parameters(), lr=0.1), comm)
    for _ in range(2):
        dp.backward(dp(tw.ones(4, 3)).mean(), 0.5)
