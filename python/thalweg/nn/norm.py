"""Normalisation layers. What they compute is in `functional.normalisation`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from .. import _core
from .. import functional as F
from ..backend import check_float
from ..functional.shape import channels_last
from ..recording import refuse
from ..variable import array_of
from .chain import finish
from .module import M, Module
from .parameter import Parameter

if TYPE_CHECKING:
    from ..distributed.comm import Communicator


class BatchNorm(Module):
    """Batch normalisation over every axis but the channels'; see `BatchNorm1d`, `BatchNorm2d`.

    Args:
        num_features: C.
        eps: added to the variance.
        momentum: weight of the newest statistics; None averages over all batches alike.
        affine: learn gamma (`weight`) and beta (`bias`).
        track_running_stats: keep the statistics that evaluation uses.
        comm: the Communicator over whose ranks training statistics are taken; None is this process.

    Buffers: running_mean (C,), running_var (C,), num_batches_tracked () int64.
    """

    fuses = ("residual", "activation")
    ranks: ClassVar[tuple[int, ...]] = ()
    momentum: float | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        comm: Communicator | None = None,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        super().__init__()
        name, dtype = type(self).__name__, check_float(dtype, "dtype")
        if num_features < 1:
            raise ValueError(f"{name}: num_features must be at least 1, got {num_features}")
        if not eps > 0:
            raise ValueError(f"{name}: eps must be positive, got {eps}")
        if momentum is not None and not 0 <= momentum <= 1:
            raise ValueError(f"{name}: momentum must be in [0, 1] or None, got {momentum}")
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.comm = comm
        self.weight = Parameter(np.ones(num_features, dtype)) if affine else None
        self.bias = Parameter(np.zeros(num_features, dtype)) if affine else None
        tracked = track_running_stats
        self.register_buffer("running_mean", np.zeros(num_features, dtype) if tracked else None)
        self.register_buffer("running_var", np.ones(num_features, dtype) if tracked else None)
        self.register_buffer("num_batches_tracked", np.zeros((), np.int64) if tracked else None)

    def forward(self, x: Any, residual: Any = None, activation: str | None = None) -> Any:
        if self.ranks and x.ndim not in self.ranks:
            expected = " or ".join(str(n) for n in self.ranks)
            raise ValueError(
                f"{type(self).__name__}: x must have {expected} axes, got shape {tuple(x.shape)}"
            )
        tracked = self.num_batches_tracked is not None
        options: dict[str, Any] = {"training": False, "momentum": 0}
        if self.training or not tracked:
            count = self.num_batches_tracked if self.momentum is None else None
            options = {"training": True, "momentum": self.momentum or 0, "count": count}
        y = self._normalise(x, residual, activation, options)
        if self.training and tracked:
            _core.advance(self.num_batches_tracked)
        return y

    def _normalise(self, x: Any, residual: Any, activation: Any, options: dict[str, Any]) -> Any:
        arguments = (self.weight, self.bias, self.running_mean, self.running_var)
        if options["training"] and self.comm is not None and self.comm.size > 1:
            y = self._synchronised((x, *arguments, self.comm), options)
            return finish(y, residual, activation)
        if residual is not None and tuple(residual.shape) != tuple(x.shape):
            return finish(self._normalise(x, None, None, options), residual, activation)
        options = options | {"eps": self.eps, "activation": activation}
        if not channels_last(array_of(x)):
            return F.batch_norm(x, *arguments, **options, residual=residual)[0]
        rows = None if residual is None else F.permute(residual, (0, 2, 3, 1))
        options = options | {"axis": -1, "residual": rows}
        return F.permute(
            F.batch_norm(F.permute(x, (0, 2, 3, 1)), *arguments, **options)[0], (0, 3, 1, 2)
        )

    def _synchronised(self, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        refuse("sync_batch_norm communicates", "capture the steps of one rank only")
        count = options["count"]
        momentum = options["momentum"] if count is None else 1 / (int(count) + 1)
        return F.sync_batch_norm(*arguments, momentum=momentum, eps=self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"


class BatchNorm1d(BatchNorm):
    """Batch normalisation of (N, C) or (N, C, L)."""

    ranks = (2, 3)


class BatchNorm2d(BatchNorm):
    """Batch normalisation of (N, C, H, W)."""

    ranks = (4,)


class SyncBatchNorm(BatchNorm):
    """Batch normalisation whose training statistics are those of all ranks' samples.

    Built without `comm`, it uses the world's.
    """

    def __init__(self, num_features: int, *args: Any, **kwargs: Any) -> None:
        if kwargs.get("comm") is None:
            from ..distributed import world

            kwargs["comm"] = world()
        super().__init__(num_features, *args, **kwargs)

    @staticmethod
    def convert(model: M, comm: Communicator) -> M:
        """Let every BatchNorm in `model` take its statistics over the ranks of `comm`, in place."""
        for module in model.modules():
            if isinstance(module, BatchNorm):
                module.comm = comm
        return model


class LayerNorm(Module):
    """Normalisation of each sample over its last axis.

    Shape:
        x, y: (..., C), weight, bias: (C,).
    """

    def __init__(
        self,
        normalized_shape: int,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        *,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        super().__init__()
        if normalized_shape < 1:
            raise ValueError(
                f"LayerNorm: normalized_shape must be at least 1, got {normalized_shape}"
            )
        dtype = check_float(dtype, "dtype")
        self.normalized_shape = normalized_shape
        self.eps = eps
        affine = elementwise_affine
        self.weight = Parameter(np.ones(normalized_shape, dtype)) if affine else None
        self.bias = Parameter(np.zeros(normalized_shape, dtype)) if affine else None

    def forward(self, x: Any) -> Any:
        return F.layer_norm(x, self.weight, self.bias, eps=self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}"
