"""Arrays of unforeseen shapes between neighbouring ranks of a pipeline."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..backend import FLOATS, Array, aligned_empty
from .comm import Communicator, Request

_HEADER_ELEMENTS = 16  # index of the dtype, number of axes, shape
_KEPT_SHAPES = 4

Key = tuple[str, int]  # what it is, number of the micro-batch


@dataclass
class _Shapes:
    """What is agreed for one batch shape: keys that the receiver knows, buffers to receive in."""

    announced: set[Key] = field(default_factory=set)
    buffers: dict[Key, Array] = field(default_factory=dict)


class Channel:
    """Activations to the next rank and their gradients back.

    A receiver learns an array's shape from a header that travels ahead of it the first time. All
    ranks see the same batch shapes in the same order, so that both ends agree on which time is the
    first. Buffers are kept for the batch shapes seen last (an epoch has two: its last batch is
    smaller).
    """

    def __init__(self, comm: Communicator) -> None:
        self.comm = comm
        self._kept: dict[tuple[int, ...], _Shapes] = {}
        self._shapes = _Shapes()
        self._sending: list[Request] = []

    def begin(self, x: Array | None) -> tuple[int, ...]:
        """The shape of the batch, on all ranks; only the first one needs to have the array."""
        header = np.zeros(_HEADER_ELEMENTS, np.int64)
        if x is not None and self.comm.rank == 0:
            header[1 : 2 + x.ndim] = x.ndim, *x.shape
        _, shape = _parse(self.comm.broadcast(header))
        self._shapes = self._kept[shape] = self._kept.pop(shape, _Shapes())
        if len(self._kept) > _KEPT_SHAPES:
            del self._kept[next(iter(self._kept))]
        return shape

    def send(self, array: Array, dest: int, key: Key) -> None:
        """Start to send `array`, which must not change before `finish`."""
        if key not in self._shapes.announced:
            self._shapes.announced.add(key)
            header = np.zeros(_HEADER_ELEMENTS, np.int64)
            header[: 2 + array.ndim] = FLOATS.index(array.dtype), array.ndim, *array.shape
            self._sending.append(self.comm.isend(header, dest))
        self._sending.append(self.comm.isend(np.ascontiguousarray(array), dest))

    def recv(self, source: int, key: Key) -> Array:
        """The next array from `source`, in a buffer that the same key reuses in later batches."""
        buffers = self._shapes.buffers
        if key not in buffers:
            header = self.comm.recv(np.empty(_HEADER_ELEMENTS, np.int64), source)
            dtype, shape = _parse(header)
            buffers[key] = aligned_empty(shape, FLOATS[dtype])
        return self.comm.recv(buffers[key], source)

    def finish(self) -> None:
        """Wait until everything sent has left."""
        for request in self._sending:
            request.wait()
        self._sending.clear()


def _parse(header: Array) -> tuple[int, tuple[int, ...]]:
    dtype, ndim = int(header[0]), int(header[1])
    return dtype, tuple(map(int, header[2 : 2 + ndim]))
