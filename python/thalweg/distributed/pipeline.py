"""Pipeline training: the layers are cut into stages, the mini-batch into micro-batches.

Rank r of p holds a contiguous block of the stages; activations travel to rank r+1, their gradients
back. Micro-batch i of m takes the samples [B*i//m, B*(i+1)//m) and its mean loss counts n_i/B, so
that the accumulated gradient is that of the mean loss over the batch. Layers see micro-batches:
BatchNorm's statistics are those of a micro-batch, whatever the number of ranks.

In GPipe's schedule a rank is idle for (p-1)/(m+p-1) of the time.

Reference: Huang et al. 2019, GPipe: Efficient Training of Giant Neural Networks using Pipeline
Parallelism.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from ..autograd import no_grad
from ..backend import Array, as_array
from ..data.loaders import share
from ..nn import Module, Parameter, Sequential
from ..optim import Optimizer
from ..random import default_generator
from ..tensor import Tensor
from .channel import Channel
from .comm import Communicator
from .data_parallel import broadcast_model, check_same_model
from .launch import world

Action = tuple[str, int]  # "forward" or "backward", micro-batch
Loss = Callable[[Tensor, Array], Tensor]


def gpipe(rank: int, ranks: int, micro_batches: int) -> Iterator[Action]:
    """All forwards, then all backwards from the last micro-batch to the first."""
    yield from (("forward", i) for i in range(micro_batches))
    yield from (("backward", i) for i in reversed(range(micro_batches)))


# name -> what a rank does, in order
SCHEDULES: dict[str, Callable[[int, int, int], Iterator[Action]]] = {"gpipe": gpipe}


class Pipeline:
    """A sequence of stages spread over the ranks of `comm`.

    Every rank builds all stages; parameters and buffers are taken from rank 0, and each rank keeps
    its block of stages. All ranks call the same methods in the same order.

        pipe = Pipeline([first, second, third], micro_batches=8)
        optimizer = Adam(pipe.parameters())
        loss = pipe.train_step(x, y, CrossEntropyLoss(), optimizer)

    Args:
        stages: modules, at least one for each rank; a Sequential's children are its stages.
        schedule: "gpipe".
        comm: default `world()`.
        micro_batches: parts that a mini-batch is cut into; one of fewer samples has fewer parts.

    Raises:
        ValueError: fewer stages than ranks, an unknown schedule, micro_batches below 1, ranks
            whose stages differ.
    """

    def __init__(
        self,
        stages: Iterable[Module],
        schedule: str = "gpipe",
        comm: Communicator | None = None,
        micro_batches: int = 4,
    ) -> None:
        self.comm = world() if comm is None else comm
        stages = list(stages)
        if len(stages) < self.comm.size:
            raise ValueError(
                f"Pipeline: expected a stage for each of {self.comm.size} ranks, got {len(stages)}"
            )
        if schedule not in SCHEDULES:
            known = ", ".join(SCHEDULES)
            raise ValueError(f"Pipeline: schedule must be one of {known}, got {schedule!r}")
        if micro_batches < 1:
            raise ValueError(f"Pipeline: micro_batches must be at least 1, got {micro_batches}")
        whole = Sequential(*stages)
        whole.number_modules()  # a dropout mask is a function of the place in the whole
        check_same_model(whole, self.comm)
        broadcast_model(whole, self.comm)
        block = share(len(stages), self.comm.rank, self.comm.size)
        self.stages = Sequential(*stages[block])
        self.micro_batches = micro_batches
        self._first_stage = block.start
        self._schedule = SCHEDULES[schedule]
        self._channel = Channel(self.comm.duplicate())

    def parameters(self) -> Iterator[Parameter]:
        """Those of this rank's stages: what this rank's optimizer updates."""
        return self.stages.parameters()

    def train(self, mode: bool = True) -> Pipeline:
        self.stages.train(mode)
        return self

    def eval(self) -> Pipeline:
        return self.train(False)

    def train_step(
        self, x: Any, y: Any, loss: Loss, optimizer: Optimizer | None, **step_options: Any
    ) -> float:
        """Forward, backward and one optimizer step; the mean loss over the batch, on all ranks.

        Args:
            x: inputs (B, ...), used on the first rank; others may pass None.
            y: targets (B, ...), used on the last rank; others may pass None.
            loss: `loss(outputs, targets)`, a mean over samples.
            optimizer: over `parameters()`, with the same options on all ranks; its `max_norm`
                clips the norm over all of them. None on a rank without parameters.

        Raises:
            ValueError: an empty batch, inputs and targets of different lengths.
        """
        if optimizer is not None:
            optimizer.zero_grad()
        value = self.backward(x, y, loss)
        scale = step_options.pop("grad_scale", 1.0)
        scale *= self._clip(optimizer, scale)
        if optimizer is not None:
            optimizer.step(grad_scale=scale, **step_options)
        default_generator().advance()
        return value

    def backward(self, x: Any, y: Any, loss: Loss) -> float:
        """Add the gradient of the batch's mean loss to `.grad`; the loss, on all ranks."""
        batch = _Batch(self, self._channel, x)
        targets = batch.check_targets(y) if batch.is_last else None
        total = np.zeros(1)
        for action, i in self._schedule(self.comm.rank, self.comm.size, len(batch.parts)):
            if action == "backward":
                batch.backward(i)
                continue
            output = batch.forward(i)
            if targets is not None:
                value = batch.outputs[i] = loss(output, targets[batch.parts[i]])
                total += batch.weight(i) * value.item()
        self._channel.finish()
        return float(self.comm.broadcast(total, self.comm.size - 1)[0])

    def _clip(self, optimizer: Optimizer | None, scale: float) -> float:
        """The factor that brings the norm over all ranks, not only this one's, to `max_norm`."""
        limit = None if optimizer is None else optimizer.max_norm
        mine = 0.0 if optimizer is None or limit is None else optimizer.grad_norm(grad_scale=scale)
        norm = math.sqrt(self.comm.allreduce(np.array([mine**2]))[0])
        return limit / norm if limit is not None and norm > limit else 1.0

    @no_grad()
    def __call__(self, x: Any) -> Tensor:
        """The outputs (B, ...) on all ranks, nothing recorded; x is used on the first rank."""
        batch = _Batch(self, self._channel, x)
        outputs = [batch.forward(i).data for i in range(len(batch.parts))]
        self._channel.finish()
        whole = np.concatenate(outputs) if batch.is_last else None
        return Tensor(self.comm.broadcast_object(whole, self.comm.size - 1))

    def state_dict(self) -> dict[str, Array]:
        """All stages' arrays, on all ranks, under the names of `Sequential(*stages)`."""
        mine = self.stages.state_dict()
        parts = self.comm.allgather({self._global_name(k): v for k, v in mine.items()})
        return {name: value for part in parts for name, value in part.items()}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Take this rank's part of a `state_dict` of all stages."""
        names = self.stages.state_dict()
        self.stages.load_state_dict({name: state[self._global_name(name)] for name in names})

    def _global_name(self, name: str) -> str:
        index, rest = name.split(".", 1)
        return f"{self._first_stage + int(index)}.{rest}"


class _Batch:
    """One mini-batch on its way through this rank: the micro-batches between their two visits."""

    def __init__(self, pipe: Pipeline, channel: Channel, x: Any) -> None:
        self._stages, self._channel = list(pipe.stages.children()), channel
        self._rank, last = pipe.comm.rank, pipe.comm.size - 1
        self._is_first, self.is_last = self._rank == 0, self._rank == last
        self._x = as_array(x) if self._is_first else None
        self.samples = channel.begin(self._x)[0]
        if self.samples == 0:
            raise ValueError("Pipeline: the batch is empty")
        count = min(pipe.micro_batches, self.samples)
        self.parts = [share(self.samples, i, count) for i in range(count)]
        self.inputs: dict[int, Tensor] = {}
        self.outputs: dict[int, Tensor] = {}

    def check_targets(self, y: Any) -> Array:
        targets = as_array(y)
        if len(targets) != self.samples:
            raise ValueError(f"Pipeline: {self.samples} inputs but {len(targets)} targets")
        return targets

    def weight(self, i: int) -> float:
        """The part of the batch that micro-batch i is."""
        part = self.parts[i]
        return float((part.stop - part.start) / self.samples)

    def forward(self, i: int) -> Tensor:
        """Take micro-batch i through this rank's stages and on to the next rank."""
        if self._x is not None:
            x = Tensor(self._x[self.parts[i]])
        else:
            received = self._channel.recv(self._rank - 1, ("activation", i))
            x = self.inputs[i] = Tensor(received, requires_grad=True)
        generator = default_generator()
        offset = generator.sample_offset
        generator.sample_offset = offset + self.parts[i].start
        try:
            for stage in self._stages:
                x = stage(x)
        finally:
            generator.sample_offset = offset
        output = self.outputs[i] = x
        if not self.is_last:
            self._channel.send(output.data, self._rank + 1, ("activation", i))
        return output

    def backward(self, i: int) -> None:
        """Take the gradient of micro-batch i back through this rank to the one before."""
        output = self.outputs.pop(i)
        if self.is_last:
            seed = np.asarray(self.weight(i), output.dtype)
        else:
            seed = self._channel.recv(self._rank + 1, ("gradient", i))
        if output.requires_grad:  # a first block without parameters has nothing to learn
            output.backward(seed)
        if not self._is_first:
            grad = self.inputs.pop(i).grad
            assert grad is not None
            self._channel.send(grad.data, self._rank - 1, ("gradient", i))
