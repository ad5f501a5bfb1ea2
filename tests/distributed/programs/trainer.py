"""trainer.py FILE: `Trainer.fit` on this job's ranks; leaves the history's losses and the model."""

from __future__ import annotations

import sys

import numpy as np

import thalweg as tw
from thalweg import nn
from thalweg.distributed import world

if __name__ == "__main__":
    tw.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(10, 32, bias=False),
        nn.BatchNorm1d(32),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(32, 4),
    )
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((203, 10)).astype(np.float32), rng.integers(0, 4, 203)
    optimizer = tw.optim.Adam(model.parameters(), lr=1e-2)
    trainer = tw.Trainer(model, nn.CrossEntropyLoss(), optimizer, seed=3)
    history = trainer.fit((x[:150], y[:150]), (x[150:], y[150:]), epochs=4, batch_size=32)
    if world().rank == 0:
        records = history.records
        losses = {name: [r[name] for r in records] for name in ("train_loss", "val_loss")}
        np.savez(sys.argv[1], **losses, **model.state_dict())
