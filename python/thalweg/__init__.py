"""thalweg: neural networks on NumPy arrays, with kernels of its own.

`import thalweg as tw` loads NumPy and the compiled core; training, data, plotting and distribution
are loaded when their names are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as _np

from . import functional, nn, random
from ._core import (
    __version__,
    available_isas,
    get_matmul_precision,
    get_num_threads,
    has_cuda,
    isa,
    matmul_path,
    release_memory,
    set_matmul_precision,
    set_num_threads,
    use_isa,
)
from .autograd import enable_grad, is_grad_enabled, no_grad, set_grad_enabled
from .capture import Capture, capture
from .creation import (
    arange,
    empty,
    empty_like,
    eye,
    full,
    linspace,
    ones,
    ones_like,
    rand,
    rand_like,
    randn,
    randn_like,
    tensor,
    zeros,
    zeros_like,
)
from .functional import *  # noqa: F403  what `functional.__all__` lists
from .launched import note_exit_status as _note_exit_status
from .profile import Profile, profile
from .random import Generator, manual_seed
from .recording import CaptureError
from .tensor import Tensor

if TYPE_CHECKING:
    from . import analysis, callbacks, data, distributed, networks, optim, serialization
    from .serialization import load, save
    from .trainer import Trainer

float32 = _np.float32
float64 = _np.float64

__all__ = [
    "Capture",
    "CaptureError",
    "Generator",
    "Profile",
    "Tensor",
    "Trainer",
    "__version__",
    "analysis",
    "arange",
    "available_isas",
    "callbacks",
    "capture",
    "data",
    "distributed",
    "empty",
    "empty_like",
    "enable_grad",
    "eye",
    "float32",
    "float64",
    "full",
    "functional",
    "get_matmul_precision",
    "get_num_threads",
    "has_cuda",
    "is_grad_enabled",
    "isa",
    "linspace",
    "load",
    "manual_seed",
    "matmul_path",
    "networks",
    "nn",
    "no_grad",
    "ones",
    "ones_like",
    "optim",
    "profile",
    "rand",
    "rand_like",
    "randn",
    "randn_like",
    "random",
    "release_memory",
    "save",
    "serialization",
    "set_grad_enabled",
    "set_matmul_precision",
    "set_num_threads",
    "tensor",
    "use_isa",
    "zeros",
    "zeros_like",
]
__all__ += functional.__all__

_note_exit_status()

# Loaded at first use: name -> module that defines it, or None for a submodule of that name.
_LAZY = {
    "analysis": None,
    "callbacks": None,
    "data": None,
    "distributed": None,
    "networks": None,
    "optim": None,
    "serialization": None,
    "Trainer": "trainer",
    "load": "serialization",
    "save": "serialization",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'thalweg' has no attribute {name!r}")
    home = _LAZY[name]
    module = importlib.import_module(f".{home or name}", __name__)
    value = module if home is None else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
