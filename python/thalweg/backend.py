"""Memory: aligned arrays, arrays of other libraries, and the arena that holds a model's tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from . import cuda

if TYPE_CHECKING:
    from .tensor import Tensor

Array: TypeAlias = npt.NDArray[Any]
ArrayLike: TypeAlias = Any
DType: TypeAlias = "np.dtype[Any]"

ALIGNMENT_BYTES = 64
ALIGNMENT_ELEMENTS = 16

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def check_float(dtype: npt.DTypeLike, where: str) -> DType:
    """The dtype, if it is float32 or float64; TypeError otherwise."""
    checked = np.dtype(dtype)
    if checked not in FLOATS:
        raise TypeError(f"{where} must be float32 or float64, got {checked}")
    return checked


def move(name: str, x: Array, device: str) -> Array:
    """x on "cpu" (NumPy) or "cuda" (CuPy): itself where it is there already, else a copy.

    Raises:
        RuntimeError: no GPU can be used here; the message says what is missing.
    """
    if device == "cpu":
        return cuda.to_host(x)
    cuda.load(f"{name}({device!r})")
    array: Array = cuda.to_device(x)
    return array


def aligned_empty(shape: int | Sequence[int], dtype: npt.DTypeLike = np.float32) -> Array:
    """Uninitialised C-contiguous array that starts at a multiple of 64 bytes, one cache line.

    >>> aligned_empty((3, 5)).ctypes.data % 64
    0
    """
    dtype = np.dtype(dtype)
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    raw = np.empty(size + ALIGNMENT_BYTES, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT_BYTES
    return raw[start : start + size].view(dtype).reshape(shape)


def as_array(x: ArrayLike) -> Array:
    """NumPy view of anything that exports memory on the host; copies only Python sequences.

    An array on a GPU stays what it is.
    """
    if isinstance(x, np.ndarray) or cuda.is_device_array(x):
        array: Array = x
        return array
    if hasattr(x, "__dlpack__") and not hasattr(x, "__array_interface__"):
        return np.from_dlpack(x)
    return np.asarray(x)


class Arena:
    """One allocation for the values of all given tensors of a dtype, one for their gradients.

    The tensors keep their identity, values and gradients; their memory moves. From then on
    `backward` writes into the gradient buffer, so `.grad.data` is a view of it. Every tensor starts
    at a multiple of 16 elements (a cache line of float32); the padding in between is zero, so whole
    buffers can be reduced, communicated and compared.

    Args:
        tensors: leaf tensors, each given once.
        allocate: `allocate(elements, dtype)` -> 1-d array, e.g. `comm.allocate` for memory that a
            node's ranks share. Default: aligned private memory.

    Attributes:
        data, grad: dtype -> flat array.
        slices: `id(tensor)` -> its slice in the flat arrays of its dtype.

    Raises:
        ValueError: a tensor given twice, or the result of a recorded operation.
    """

    def __init__(
        self,
        tensors: Iterable[Tensor],
        allocate: Callable[[int, DType], Array] | None = None,
    ) -> None:
        allocate = allocate or aligned_empty
        self.data: dict[DType, Array] = {}
        self.grad: dict[DType, Array] = {}
        self.slices: dict[int, slice] = {}
        self._tensors = list(tensors)
        for dtype, members in self._by_dtype().items():
            size = self._place(members)
            self.data[dtype] = allocate(size, dtype)
            self.grad[dtype] = allocate(size, dtype)
            self.data[dtype].fill(0)
            self.grad[dtype].fill(0)
            for tensor in members:
                self._adopt(tensor, dtype)

    def _by_dtype(self) -> dict[DType, list[Tensor]]:
        groups: dict[DType, list[Tensor]] = {}
        seen: set[int] = set()
        for index, tensor in enumerate(self._tensors):
            if id(tensor) in seen:
                raise ValueError(f"Arena: tensor {index} was given twice")
            if not tensor.is_leaf:
                raise ValueError(f"Arena: tensor {index} is the result of a recorded operation")
            seen.add(id(tensor))
            groups.setdefault(tensor.dtype, []).append(tensor)
        return groups

    def _place(self, members: list[Tensor]) -> int:
        end = 0
        for tensor in members:
            self.slices[id(tensor)] = slice(end, end + tensor.numel())
            end += -(-tensor.numel() // ALIGNMENT_ELEMENTS) * ALIGNMENT_ELEMENTS
        return end

    def _adopt(self, tensor: Tensor, dtype: DType) -> None:
        where = self.slices[id(tensor)]
        data = self.data[dtype][where].reshape(tensor.shape)
        np.copyto(data, tensor.data)
        tensor.data = data
        tensor.move_grad(self.grad[dtype][where].reshape(tensor.shape))
