"""Many processes as one training run: the same script alone and under mpirun."""

from ..data.loaders import share
from .comm import Communicator, LocalComm, Request
from .data_parallel import DataParallel
from .launch import world
from .pipeline import Pipeline

__all__ = [
    "Communicator",
    "DataParallel",
    "LocalComm",
    "Pipeline",
    "Request",
    "share",
    "world",
]
