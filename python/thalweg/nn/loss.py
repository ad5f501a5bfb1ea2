"""Losses as modules; `reduction` is checked when they are built."""

from __future__ import annotations

from typing import Any, ClassVar

from .. import functional as F
from ..functional.loss import REDUCTIONS, check_reduction
from .module import Module


class Loss(Module):
    """A loss with a reduction."""

    reductions: ClassVar[tuple[str, ...]] = REDUCTIONS

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        check_reduction(type(self).__name__, reduction, self.reductions)
        self.reduction = reduction

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"


class MSELoss(Loss):
    """(x - target)**2: "mean" over all elements, "sum", "none", or "batchmean"."""

    def forward(self, x: Any, target: Any) -> Any:
        return F.mse_loss(x, target, reduction=self.reduction)


class HuberLoss(Loss):
    """Quadratic within `delta` of the target, linear beyond."""

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction)
        if not delta > 0:
            raise ValueError(f"HuberLoss: delta must be positive, got {delta}")
        self.delta = delta

    def forward(self, x: Any, target: Any) -> Any:
        return F.huber_loss(x, target, delta=self.delta, reduction=self.reduction)


class BCEWithLogitsLoss(Loss):
    """Binary cross-entropy on logits, target in [0, 1]."""

    def __init__(self, reduction: str = "mean", pos_weight: float = 1.0) -> None:
        super().__init__(reduction)
        self.pos_weight = pos_weight

    def forward(self, x: Any, target: Any) -> Any:
        return F.binary_cross_entropy_with_logits(
            x, target, pos_weight=self.pos_weight, reduction=self.reduction
        )


class NLLLoss(Loss):
    """-x[i, target[i]] on log-probabilities (N, C) and class indices (N,)."""

    reductions = REDUCTIONS[:3]

    def forward(self, x: Any, target: Any) -> Any:
        return F.nll_loss(x, target, reduction=self.reduction)


class CrossEntropyLoss(Loss):
    """Cross-entropy of softmax(logits), logits (N, C) and class indices (N,)."""

    reductions = REDUCTIONS[:3]

    def __init__(self, reduction: str = "mean", label_smoothing: float = 0.0) -> None:
        super().__init__(reduction)
        if not 0 <= label_smoothing <= 1:
            raise ValueError(
                f"CrossEntropyLoss: label_smoothing must be in [0, 1], got {label_smoothing}"
            )
        self.label_smoothing = label_smoothing

    def forward(self, logits: Any, target: Any) -> Any:
        return F.cross_entropy(
            logits, target, label_smoothing=self.label_smoothing, reduction=self.reduction
        )
