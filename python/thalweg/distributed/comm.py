"""One small protocol for talking between processes, with two implementations.

`LocalComm`, here, is one process and the plainest statement of what every method means;
`MpiComm` in mpi.py is an MPI job. Buffers are NumPy arrays, C-contiguous, of float32, float64 or
int64, worked on in place and never copied. Whatever else is handed in is refused by name before
MPI sees it, since MPI itself would read past a strided array without a word.

Reference: MPI: A Message-Passing Interface Standard, version 4.1 (2023).
"""

from __future__ import annotations

from collections import defaultdict, deque
from typing import Any, NoReturn, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from ..backend import aligned_empty

Array: TypeAlias = npt.NDArray[Any]

OPERATIONS = ("sum", "max", "min")
_DTYPES = tuple(np.dtype(t) for t in (np.float32, np.float64, np.int64))


class Request(Protocol):
    """A communication under way; its array must not be touched before `wait` returns."""

    def wait(self) -> None: ...

    def test(self) -> bool:
        """Whether it is complete; also gives MPI the opportunity to move it on."""


class Communicator(Protocol):
    """The ranks of a job. Collective methods are called by all ranks in the same order.

    Errors: TypeError for arrays of other kinds and dtypes, ValueError for strided or read-only
    arrays, unknown operations, and ranks outside the job; each before anything is sent.
    """

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    def allreduce(self, array: Array, op: str = "sum") -> Array:
        """Replace `array`, in place, by its "sum", "max" or "min" over ranks; returns it."""

    def iallreduce(self, array: Array, op: str = "sum") -> Request: ...

    def broadcast(self, array: Array, root: int = 0) -> Array:
        """Replace `array`, in place, by root's; returns it."""

    def broadcast_object(self, obj: Any, root: int = 0) -> Any: ...

    def gather(self, obj: Any, root: int = 0) -> list[Any] | None:
        """Every rank's `obj` in order of rank, at root; None elsewhere."""

    def allgather(self, obj: Any) -> list[Any]: ...

    def barrier(self) -> None: ...

    def send(self, array: Array, dest: int, tag: int = 0) -> None: ...

    def recv(self, array: Array, source: int, tag: int = 0) -> Array:
        """Fill `array`, which has the sent array's dtype and number of elements; returns it."""

    def isend(self, array: Array, dest: int, tag: int = 0) -> Request: ...

    def irecv(self, array: Array, source: int, tag: int = 0) -> Request: ...

    def allocate(self, elements: int, dtype: npt.DTypeLike) -> Array:
        """Uninitialised memory (elements,) for an Arena."""

    def duplicate(self) -> Communicator:
        """The same ranks in a channel of their own: its messages and collectives match only
        each other, in whatever order they mix with those of this communicator."""

    def abort(self, code: int = 1) -> NoReturn:
        """End the whole job, every rank, now."""


def check_buffer(where: str, array: Array, *, written: bool = True) -> None:
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{where}: array must be a NumPy array, got {type(array).__name__}")
    if array.dtype not in _DTYPES:
        raise TypeError(f"{where}: dtype must be float32, float64 or int64, got {array.dtype}")
    if not array.flags.c_contiguous:
        raise ValueError(
            f"{where}: array must be C-contiguous, got shape {array.shape} with strides "
            f"{array.strides}; pass numpy.ascontiguousarray(array)"
        )
    if written and not array.flags.writeable:
        raise ValueError(f"{where}: array is read-only and would be written")


def check_operation(where: str, op: str) -> None:
    if op not in OPERATIONS:
        raise ValueError(f"{where}: op must be one of {', '.join(OPERATIONS)}, got {op!r}")


def check_rank(where: str, name: str, rank: int, size: int) -> None:
    if not 0 <= rank < size:
        raise ValueError(f"{where}: {name} must be in [0, {size}), got {rank}")


class _Done:
    """The request of something that was complete when it was asked for."""

    def wait(self) -> None:
        pass

    def test(self) -> bool:
        return True


class _Delivery:
    """A `LocalComm.irecv`: looks into the mailbox when it is waited for."""

    def __init__(self, mailbox: deque[Array], array: Array) -> None:
        self._mailbox, self._array, self._done = mailbox, array, False

    def test(self) -> bool:
        if not self._done and self._mailbox:
            check_count("recv", self._array.size, self._mailbox[0].size)
            self._array.reshape(-1)[:] = self._mailbox.popleft().reshape(-1)
            self._done = True
        return self._done

    def wait(self) -> None:
        if not self.test():
            raise RuntimeError("recv: nothing was sent with this tag, and no other rank will")


def check_count(where: str, expected: int, got: int) -> None:
    if expected != got:
        raise ValueError(f"{where}: array has {expected} elements, the message has {got}")


class LocalComm:
    """One process alone. Messages to rank 0 come from rank 0."""

    rank = 0
    size = 1

    def __init__(self) -> None:
        self._mailboxes: defaultdict[int, deque[Array]] = defaultdict(deque)

    def allreduce(self, array: Array, op: str = "sum") -> Array:
        check_buffer("allreduce", array)
        check_operation("allreduce", op)
        return array

    def iallreduce(self, array: Array, op: str = "sum") -> Request:
        self.allreduce(array, op)
        return _Done()

    def broadcast(self, array: Array, root: int = 0) -> Array:
        check_buffer("broadcast", array)
        check_rank("broadcast", "root", root, 1)
        return array

    def broadcast_object(self, obj: Any, root: int = 0) -> Any:
        check_rank("broadcast_object", "root", root, 1)
        return obj

    def gather(self, obj: Any, root: int = 0) -> list[Any] | None:
        check_rank("gather", "root", root, 1)
        return [obj]

    def allgather(self, obj: Any) -> list[Any]:
        return [obj]

    def barrier(self) -> None:
        pass

    def send(self, array: Array, dest: int, tag: int = 0) -> None:
        check_buffer("send", array, written=False)
        check_rank("send", "dest", dest, 1)
        self._mailboxes[tag].append(array.copy())

    def recv(self, array: Array, source: int, tag: int = 0) -> Array:
        self.irecv(array, source, tag).wait()
        return array

    def isend(self, array: Array, dest: int, tag: int = 0) -> Request:
        self.send(array, dest, tag)
        return _Done()

    def irecv(self, array: Array, source: int, tag: int = 0) -> Request:
        check_buffer("recv", array)
        check_rank("recv", "source", source, 1)
        return _Delivery(self._mailboxes[tag], array)

    def allocate(self, elements: int, dtype: npt.DTypeLike) -> Array:
        return aligned_empty((elements,), dtype)

    def duplicate(self) -> LocalComm:
        return LocalComm()

    def abort(self, code: int = 1) -> NoReturn:
        raise SystemExit(code)
