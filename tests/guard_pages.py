"""Arrays between two forbidden pages: an access one element too far kills the process."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
from collections.abc import Callable, Iterator

from numpy._core import _multiarray_umath

PAGE = mmap.PAGESIZE
_READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE
_FAILED = ctypes.c_void_p(-1).value
_SET_HANDLER = 304  # of NumPy's table of C functions: PyDataMem_SetHandler

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


class Memory:
    """Hands out memory that ends (or begins) exactly where a forbidden page begins (or ends)."""

    def __init__(self, at_end: bool) -> None:
        self._at_end = at_end
        self._blocks: dict[int, tuple[int, int, int]] = {}  # address -> base, mapped bytes, size

    def allocate(self, size: int) -> int:
        inner = -(-max(size, 1) // PAGE) * PAGE
        base = _libc.mmap(None, inner + 2 * PAGE, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
        if base == _FAILED or _libc.mprotect(base + PAGE, inner, _READ_WRITE):
            return 0
        # NumPy asks for one byte where there are no elements: such memory needs alignment only.
        address: int = base + PAGE + (inner - size if self._at_end and size > 1 else 0)
        self._blocks[address] = base, inner + 2 * PAGE, size
        return address

    def free(self, address: int | None) -> None:
        if address:
            base, mapped, _ = self._blocks.pop(address)
            _libc.munmap(base, mapped)

    def reallocate(self, address: int, size: int) -> int:
        moved = self.allocate(size)
        ctypes.memmove(moved, address, min(size, self._blocks[address][2]))
        self.free(address)
        return moved


_Size, _Pointer = ctypes.c_size_t, ctypes.c_void_p
_MALLOC = ctypes.CFUNCTYPE(_Pointer, _Pointer, _Size)
_CALLOC = ctypes.CFUNCTYPE(_Pointer, _Pointer, _Size, _Size)
_REALLOC = ctypes.CFUNCTYPE(_Pointer, _Pointer, _Pointer, _Size)
_FREE = ctypes.CFUNCTYPE(None, _Pointer, _Pointer, _Size)


class _Handler(ctypes.Structure):
    """NumPy's PyDataMem_Handler."""

    _fields_ = (
        ("name", ctypes.c_char * 127),
        ("version", ctypes.c_uint8),
        ("context", _Pointer),
        ("malloc", _MALLOC),
        ("calloc", _CALLOC),
        ("realloc", _REALLOC),
        ("free", _FREE),
    )


_kept: list[object] = []  # arrays may outlive everything else that refers to their allocator


@contextlib.contextmanager
def guarded_numpy(*, at_end: bool) -> Iterator[None]:
    """Every array that NumPy allocates meanwhile is guarded: inputs, results and temporaries.

    Memory is freed by Python code, which loses an exception that is on its way just then: let
    none be caught inside, and let arrays that outlive Python's functions end by `os._exit`.
    """
    memory = Memory(at_end)
    handler = _Handler(
        b"guarded",
        1,
        None,
        _MALLOC(lambda _, size: memory.allocate(size)),
        _CALLOC(lambda _, count, size: memory.allocate(count * size)),
        _REALLOC(lambda _, address, size: memory.reallocate(address, size)),
        _FREE(lambda _, address, size: memory.free(address)),
    )
    name = b"mem_handler"
    make = ctypes.pythonapi.PyCapsule_New
    make.restype, make.argtypes = ctypes.py_object, [_Pointer, ctypes.c_char_p, _Pointer]
    capsule = make(ctypes.addressof(handler), name, None)
    _kept.extend((memory, handler, name))
    before = _set_handler()(capsule)
    try:
        yield
    finally:
        _set_handler()(before)


def _set_handler() -> Callable[[object], object]:
    table_of = ctypes.pythonapi.PyCapsule_GetPointer
    table_of.restype, table_of.argtypes = _Pointer, [ctypes.py_object, ctypes.c_char_p]
    table = ctypes.cast(table_of(_multiarray_umath._ARRAY_API, None), ctypes.POINTER(_Pointer))
    return ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(table[_SET_HANDLER])
