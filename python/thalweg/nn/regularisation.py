"""Layers that are there in training only."""

from __future__ import annotations

from typing import Any

from .. import functional as F
from ..random import Generator, default_generator
from .module import Module


class Dropout(Module):
    """In training, x / (1 - p) with probability 1 - p and else 0; in evaluation x.

    The mask is drawn by position, see `functional.dropout`: seed, step and sample offset come from
    `generator` (default: the default one), the module's number from its place in the model.
    """

    module_id = 0

    def __init__(self, p: float = 0.5, *, generator: Generator | None = None) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"Dropout: p must be in [0, 1), got {p}")
        self.p = p
        self.generator = generator

    def forward(self, x: Any) -> Any:
        if not self.training or self.p == 0:
            return x
        source = self.generator or default_generator()
        return F.dropout(
            x,
            self.p,
            module=self.module_id,
            source=source.snapshot(),
        )

    def extra_repr(self) -> str:
        return f"p={self.p}"
