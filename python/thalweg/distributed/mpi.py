"""`MpiComm`: the Communicator protocol over mpi4py's buffer methods.

mpi4py is the caller's to import (launch.py does it): this file only speaks to the communicator
object that it is given, so that the package imports without MPI.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import numpy.typing as npt

from ..backend import aligned_empty
from .comm import Array, Request, check_buffer, check_count, check_operation, check_rank

if TYPE_CHECKING:
    from mpi4py import MPI

# MPI counts are C ints in every library older than MPI 4 (Open MPI 5 among them), and so is the
# byte count of a received message: larger arrays travel in pieces of at most this.
MAX_BYTES = 1 << 30


def _pieces(array: Array) -> Iterator[Array]:
    flat = array.reshape(-1)
    length = MAX_BYTES // flat.itemsize
    for start in range(0, flat.size, length):
        yield flat[start : start + length]


class _Requests:
    """The pieces of one communication; those of a receive know how much has to arrive."""

    def __init__(self, mpi: Any, requests: list[MPI.Request], expected: list[Array]) -> None:
        self._mpi, self._requests, self._expected = mpi, requests, expected
        self._statuses = [mpi.Status() for _ in requests]

    def test(self) -> bool:
        if not self._requests:
            return True
        if self._mpi.Request.Testall(self._requests, self._statuses):
            self._finish()
        return not self._requests

    def wait(self) -> None:
        if self._requests:
            self._mpi.Request.Waitall(self._requests, self._statuses)
            self._finish()

    def _finish(self) -> None:
        self._requests = []
        for piece, status in zip(self._expected, self._statuses, strict=False):
            check_count("recv", piece.size, status.Get_count() // piece.itemsize)


class MpiComm:
    """The ranks of an mpi4py communicator.

    `comm` is an intracommunicator; it is duplicated, so that the caller's own messages never
    meet ours.
    """

    def __init__(self, comm: MPI.Intracomm) -> None:
        from mpi4py import MPI

        self._mpi = MPI
        self._comm = comm.Dup()
        self._operations = {"sum": MPI.SUM, "max": MPI.MAX, "min": MPI.MIN}
        self.rank: int = comm.rank
        self.size: int = comm.size

    def _reduction(self, where: str, array: Array, op: str) -> MPI.Op:
        check_buffer(where, array)
        check_operation(where, op)
        return self._operations[op]

    def allreduce(self, array: Array, op: str = "sum") -> Array:
        operation = self._reduction("allreduce", array, op)
        for piece in _pieces(array):
            self._comm.Allreduce(self._mpi.IN_PLACE, piece, operation)
        return array

    def iallreduce(self, array: Array, op: str = "sum") -> Request:
        operation = self._reduction("iallreduce", array, op)
        start = self._comm.Iallreduce
        requests = [start(self._mpi.IN_PLACE, piece, operation) for piece in _pieces(array)]
        return _Requests(self._mpi, requests, [])

    def broadcast(self, array: Array, root: int = 0) -> Array:
        check_buffer("broadcast", array, written=self.rank != root)
        check_rank("broadcast", "root", root, self.size)
        for piece in _pieces(array):
            self._comm.Bcast(piece, root)
        return array

    def broadcast_object(self, obj: Any, root: int = 0) -> Any:
        check_rank("broadcast_object", "root", root, self.size)
        return self._comm.bcast(obj, root)

    def gather(self, obj: Any, root: int = 0) -> list[Any] | None:
        check_rank("gather", "root", root, self.size)
        return self._comm.gather(obj, root)

    def allgather(self, obj: Any) -> list[Any]:
        return self._comm.allgather(obj)

    def barrier(self) -> None:
        self._comm.Barrier()

    def send(self, array: Array, dest: int, tag: int = 0) -> None:
        self.isend(array, dest, tag).wait()

    def recv(self, array: Array, source: int, tag: int = 0) -> Array:
        self.irecv(array, source, tag).wait()
        return array

    def isend(self, array: Array, dest: int, tag: int = 0) -> Request:
        check_buffer("send", array, written=False)
        check_rank("send", "dest", dest, self.size)
        requests = [self._comm.Isend(piece, dest, tag) for piece in _pieces(array)]
        return _Requests(self._mpi, requests, [])

    def irecv(self, array: Array, source: int, tag: int = 0) -> Request:
        check_buffer("recv", array)
        check_rank("recv", "source", source, self.size)
        pieces = list(_pieces(array))
        requests = [self._comm.Irecv(piece, source, tag) for piece in pieces]
        return _Requests(self._mpi, requests, pieces)

    def allocate(self, elements: int, dtype: npt.DTypeLike) -> Array:
        return aligned_empty((elements,), dtype)

    def duplicate(self) -> MpiComm:
        return MpiComm(self._comm)

    def abort(self, code: int = 1) -> NoReturn:
        sys.stdout.flush()
        sys.stderr.flush()
        self._comm.Abort(code)
        raise AssertionError("MPI_Abort returned")
