"""As much of CuPy as thalweg uses, over host memory: GPU arrays for the emulated table.

Only the interface is imitated. A pointer that CuPy would place on a GPU points to host memory here,
where the emulated kernels find it; NumPy does not, since the class is no ndarray.
"""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import numpy.typing as npt

Host = npt.NDArray[Any]


class ndarray:
    def __init__(self, host: Host) -> None:
        self.host = host

    shape = property(lambda self: self.host.shape)
    dtype = property(lambda self: self.host.dtype)
    size = property(lambda self: self.host.size)
    T = property(lambda self: ndarray(self.host.T))

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        interface = dict(self.host.__array_interface__)
        interface["data"] = (interface["data"][0], not self.host.flags.writeable)
        return {**interface, "version": 3, "stream": 1}

    def __getitem__(self, key: Any) -> ndarray:
        return ndarray(self.host[key])

    def __setitem__(self, key: Any, value: Any) -> None:
        self.host[key] = value.host if isinstance(value, ndarray) else value

    def reshape(self, *shape: Any) -> ndarray:
        return ndarray(self.host.reshape(*shape))

    def view(self, dtype: Any) -> ndarray:
        return ndarray(self.host.view(dtype))

    def fill(self, value: float) -> None:
        self.host.fill(value)

    def get(self) -> Host:
        return self.host.copy()


class ExternalStream:
    def __init__(self, handle: int) -> None:
        self.handle = handle

    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


def asarray(x: Any) -> ndarray:
    return x if isinstance(x, ndarray) else ndarray(np.array(x))


def module() -> types.ModuleType:
    """To stand in sys.modules["cupy"]."""
    cupy = types.ModuleType("cupy")
    cupy.__dict__.update(
        ndarray=ndarray,
        asarray=asarray,
        ascontiguousarray=lambda x: ndarray(np.ascontiguousarray(x.host)),
        empty=lambda shape, dtype: ndarray(np.empty(shape, dtype)),
        zeros=lambda shape, dtype: ndarray(np.zeros(shape, dtype)),
        cuda=types.SimpleNamespace(ExternalStream=ExternalStream),
    )
    return cupy
