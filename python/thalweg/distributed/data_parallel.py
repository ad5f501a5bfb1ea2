"""Data parallel training: every rank has the model and a share of each mini-batch.

A global batch of B samples is cut into contiguous shares, rank r of p takes `share(B, r, p)`.
With L_r the mean loss over a share of n_r samples, the loss of the whole batch is

    L = sum_r (n_r / B) L_r,        dL/dw = sum_r (n_r / B) dL_r/dw,

so seeding each rank's backward with n_r / B makes a plain sum of gradients the gradient of one
rank on the whole batch. The sum runs while backward goes on: gradients lie in an `Arena`, cut from
its end (the last layers, whose gradients come first) into buckets, and a bucket is on its way as
soon as it is complete.

References: Li et al. 2020, PyTorch Distributed (buckets and overlap); Goyal et al. 2017 (weights
of unequal shares).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..backend import Arena, Array
from ..nn import Module, Parameter, SyncBatchNorm
from ..optim import Optimizer
from ..random import default_generator
from ..recording import constant, refuse
from ..tensor import Tensor
from .comm import Communicator, Request
from .launch import world

BUCKET_BYTES = 1 << 20


@dataclass
class _Bucket:
    """Neighbouring gradients that travel together, and those of them still to come."""

    memory: Array
    parameters: list[Parameter]
    pending: set[int] = field(default_factory=set)


def _cut(arena: Arena, parameters: list[Parameter], bucket_bytes: int) -> list[_Bucket]:
    """Buckets of at least `bucket_bytes`, from the end of each dtype's gradients to their start."""
    buckets = []
    for dtype, gradients in arena.grad.items():
        members = [p for p in reversed(parameters) if p.dtype == dtype]
        end, first = gradients.size, 0
        for count, parameter in enumerate(members, 1):
            start = arena.slices[id(parameter)].start
            if count == len(members) or (end - start) * dtype.itemsize >= bucket_bytes:
                buckets.append(_Bucket(gradients[start:end], members[first:count]))
                end, first = start, count
    return buckets


class DataParallel:
    """A model and its optimizer, kept identical on all ranks of `comm`.

    Parameters, buffers and the random generator's state are taken from rank 0, BatchNorm layers
    take their statistics over all ranks. All ranks have to build the same model, and to call the
    methods in the same order, also with an empty share; which parameters a loss uses may differ.
    With one rank nothing is communicated.

        dp = DataParallel(model, optimizer)
        dp.backward(loss(dp(x), y), len(x) / global_batch)
        dp.step()

    Args:
        model: with several ranks its trainable parameters move into an Arena; the Tensor objects
            stay.
        optimizer: over parameters of the model; None to call `synchronize` by hand.
        comm: default `world()`.
        bucket_bytes: gradients that are sent together, in bytes.

    Raises:
        ValueError: the ranks' models differ in names, shapes or dtypes (which rank, and where); a
            parameter of the optimizer is not the model's.
    """

    def __init__(
        self,
        model: Module,
        optimizer: Optimizer | None = None,
        comm: Communicator | None = None,
        *,
        bucket_bytes: int = BUCKET_BYTES,
    ) -> None:
        if bucket_bytes <= 0:
            raise ValueError(f"DataParallel: bucket_bytes must be positive, got {bucket_bytes}")
        if optimizer is not None:
            check_same_parameters(model, optimizer)
        self.model = model
        self.optimizer = optimizer
        self.comm = world() if comm is None else comm
        check_same_model(model, self.comm)
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._buckets: list[_Bucket] = []
        self._requests: list[Request] = []
        self._exchanging = False
        if self.comm.size > 1:
            broadcast_model(model, self.comm)
            SyncBatchNorm.convert(model, self.comm.duplicate())
            # A channel of its own: BatchNorm's collectives mix with these in any order.
            self._channel = self.comm.duplicate()
            self.arena = Arena(self._parameters, self.comm.allocate)
            self._buckets = _cut(self.arena, self._parameters, bucket_bytes)
            self._listen()

    def __call__(self, *inputs: Any) -> Any:
        return self.model(*inputs)

    def _listen(self) -> None:
        for bucket in self._buckets:
            for parameter in bucket.parameters:
                hook = functools.partial(self._complete, bucket.pending)
                parameter.register_post_accumulate_grad_hook(hook)

    def backward(self, loss: Tensor, share: float, *, sync: bool = True) -> None:
        """Add this rank's part of the gradient, and start to sum it over ranks.

        Args:
            loss: mean loss over this rank's samples (for an empty share, of an empty batch).
            share: this rank's samples over the samples of all ranks, in [0, 1].
            sync: False accumulates only: for all but the last backward before a step.

        Raises:
            ValueError: share outside [0, 1].
            RuntimeError: the sum of an earlier backward is under way; call `step` first, or
                give that backward sync=False.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"DataParallel.backward: share must be in [0, 1], got {share}")
        if self._exchanging:
            raise RuntimeError(
                "DataParallel.backward: the gradients of the last backward are being summed; "
                "call step() before, or sync=False in all but the last backward of a step"
            )
        if self.comm.size > 1:
            refuse("DataParallel.backward communicates", "capture the steps of one rank only")
        self._exchanging = sync and self.comm.size > 1
        self._requests.clear()
        for bucket in self._buckets:
            bucket.pending.update(map(id, bucket.parameters))
        loss.backward(constant(np.asarray(share, loss.dtype)))

    def _complete(self, pending: set[int], parameter: Tensor) -> None:
        """A gradient is final: send the buckets that are whole, in the order all ranks keep."""
        if not self._exchanging:
            return
        pending.discard(id(parameter))
        for bucket in self._buckets[len(self._requests) : -1]:
            if bucket.pending:
                break
            self._requests.append(self._channel.iallreduce(bucket.memory))
        if self._requests:  # MPI moves messages on only while it is called
            self._requests[-1].test()

    def synchronize(self) -> None:
        """Wait until every `.grad` is the sum over ranks; no-op where none is under way.

        A parameter that no rank used keeps `.grad` None; one that some ranks used has zeros from
        the others.
        """
        if not self._exchanging:
            return
        for bucket in self._buckets[len(self._requests) : -1]:
            self._requests.append(self._channel.iallreduce(bucket.memory))
        # The last one is complete when backward is over: nothing is left to overlap it with, and
        # MPI's blocking sum takes about half the time of the other.
        for bucket in self._buckets[-1:]:
            self._channel.allreduce(bucket.memory)
        used_here = np.array([p.grad is not None for p in self._parameters], np.int64)
        used_anywhere = self._channel.allreduce(used_here, "max")
        for request in self._requests:
            request.wait()
        for parameter, used in zip(self._parameters, used_anywhere, strict=True):
            if used and parameter.grad is None:
                flat = self.arena.grad[parameter.dtype][self.arena.slices[id(parameter)]]
                parameter.grad = Tensor(flat.reshape(parameter.shape))
        self._exchanging = False

    def step(self, **options: Any) -> Any:
        """`synchronize`, then `optimizer.step(**options)`."""
        if self.optimizer is None:
            raise RuntimeError("DataParallel.step: constructed without an optimizer")
        self.synchronize()
        return self.optimizer.step(**options)

    def mean(self, value: float, share: float) -> float:
        """The mean over all samples of a mean over this rank's; `value` of an empty share may be
        anything, NaN included."""
        weighted = np.array([value * share if share else 0.0])
        return float(self.comm.allreduce(weighted)[0])


def check_same_parameters(model: Module, optimizer: Optimizer) -> None:
    """ValueError if the optimizer has a parameter that no backward pass of the model reaches."""
    own = {id(parameter) for parameter in model.parameters()}
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for i, parameter in enumerate(held):
        if id(parameter) not in own:
            raise ValueError(
                f"DataParallel: parameter {i} of the optimizer is not one of the model's; "
                "make the optimizer with model.parameters()"
            )


def check_same_model(model: Module, comm: Communicator) -> None:
    """Raise ValueError on every rank unless all have the same names, shapes and dtypes."""
    arrays = {name: parameter.data for name, parameter in model.named_parameters()}
    arrays |= dict(model.named_buffers())
    mine = [f"{name} {array.dtype}{list(array.shape)}" for name, array in arrays.items()]
    lists = comm.allgather(mine)
    for rank, other in enumerate(lists):
        if other != lists[0]:
            pairs = zip([*lists[0], "nothing"], [*other, "nothing"], strict=False)
            first, theirs = next((a, b) for a, b in pairs if a != b)
            raise ValueError(f"model differs between ranks: 0 has {first}, {rank} has {theirs}")


def broadcast_model(model: Module, comm: Communicator) -> None:
    """Give every rank the parameters, buffers and random generator of rank 0."""
    for parameter in model.parameters():
        comm.broadcast(parameter.data)
    for buffer in model.buffers():
        comm.broadcast(buffer)
    generator = default_generator()
    generator.load_state_dict(comm.broadcast_object(generator.state_dict()))
