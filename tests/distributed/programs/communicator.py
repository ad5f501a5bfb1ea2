"""Every Communicator method over array kinds, with data that depend on the rank alone."""

from __future__ import annotations

import numpy as np

from thalweg.distributed import Communicator, mpi, world

SHAPES = [(), (0,), (1,), (7,), (3, 5), (257, 3)]
DTYPES = [np.float32, np.float64, np.int64]


def kinds():
    return [(shape, dtype) for shape in SHAPES for dtype in DTYPES]


def ramp(shape, dtype, rank):
    """Small integers, exact in every dtype: element i on rank r is (r + 1) + i."""
    count = int(np.prod(shape))
    return (np.arange(count) + rank + 1).astype(dtype).reshape(shape)


def expect(actual, desired):
    np.testing.assert_array_equal(actual, desired, strict=True)


def check_reductions(comm: Communicator) -> None:
    size = comm.size
    for shape, dtype in kinds():
        base = ramp(shape, dtype, -1)
        results = {
            "sum": size * base + dtype(size * (size + 1) // 2),
            "max": base + dtype(size),
            "min": base + dtype(1),
        }
        for op, desired in results.items():
            array = ramp(shape, dtype, comm.rank)
            assert comm.allreduce(array, op) is array
            expect(array, desired.astype(dtype).reshape(shape))
            array = ramp(shape, dtype, comm.rank)
            request = comm.iallreduce(array, op)
            request.wait()
            assert request.test()
            expect(array, desired.astype(dtype).reshape(shape))


def check_broadcasts(comm: Communicator) -> None:
    for root in range(comm.size):
        for shape, dtype in kinds():
            array = ramp(shape, dtype, comm.rank)
            assert comm.broadcast(array, root) is array
            expect(array, ramp(shape, dtype, root))
        assert comm.broadcast_object({"rank": comm.rank}, root) == {"rank": root}
        gathered = comm.gather(("rank", comm.rank), root)
        assert gathered == ([("rank", r) for r in range(comm.size)] if comm.rank == root else None)
    assert comm.allgather(comm.rank**2) == [r**2 for r in range(comm.size)]


def check_ring(comm: Communicator) -> None:
    """Each rank passes its array to the next one, itself included where it is alone."""
    after, before = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
    for tag, (shape, dtype) in enumerate(kinds()):
        sent = ramp(shape, dtype, comm.rank)
        sent.flags.writeable = False
        request = comm.isend(sent, after, tag)
        received = comm.recv(np.zeros(shape, dtype), before, tag)
        request.wait()
        expect(received, ramp(shape, dtype, before))


def check_tags_are_channels(comm: Communicator) -> None:
    after, before = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
    sent = [np.array([float(tag), comm.rank]) for tag in (1, 2)]
    requests = [comm.isend(array, after, tag) for tag, array in zip((1, 2), sent, strict=True)]
    received = [np.zeros(2), np.zeros(2)]
    pending = [comm.irecv(received[tag - 1], before, tag) for tag in (2, 1)]
    for request in requests + pending:
        request.wait()
    expect(np.array(received), np.array([[1.0, before], [2.0, before]]))


def check_blocking_pairs(comm: Communicator) -> None:
    partner = comm.rank ^ 1
    if partner < comm.size and comm.size > 1:
        array = np.full(5, float(comm.rank))
        if comm.rank < partner:
            comm.send(array, partner)
            comm.recv(array, partner)
            expect(array, np.full(5, partner + 10.0))
        else:
            comm.recv(array, partner)
            expect(array, np.full(5, float(partner)))
            comm.send(array + comm.rank + 10 - partner, partner)
    comm.barrier()


def check_duplicates_are_separate(comm: Communicator) -> None:
    """Two ranks may post to two channels in opposite orders."""
    other = comm.duplicate()
    first, second = np.array([1.0]), np.array([10.0])
    order = [(comm, first), (other, second)]
    for request in [c.iallreduce(a) for c, a in (order if comm.rank % 2 else order[::-1])]:
        request.wait()
    expect(first, np.array([1.0 * comm.size]))
    expect(second, np.array([10.0 * comm.size]))


def check_count_is_checked(comm: Communicator) -> None:
    request = comm.isend(np.zeros(3), comm.rank, tag=99)
    try:
        comm.recv(np.zeros(4), comm.rank, tag=99)
    except ValueError as error:
        assert str(error) == "recv: array has 4 elements, the message has 3"
    else:
        raise AssertionError("a short message was taken for a whole one")
    request.wait()


def check_all(comm: Communicator) -> None:
    check_reductions(comm)
    check_broadcasts(comm)
    check_ring(comm)
    check_tags_are_channels(comm)
    check_blocking_pairs(comm)
    check_duplicates_are_separate(comm)
    check_count_is_checked(comm)


if __name__ == "__main__":
    comm = world()
    assert world() is comm
    check_all(comm)
    mpi.MAX_BYTES = 64  # as if every array were larger than one MPI message can be
    check_all(comm)
    if comm.rank == 0:
        print(type(comm).__name__, comm.size)
