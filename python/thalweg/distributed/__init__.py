"""Many processes as one training run: the same script alone and under mpirun."""

from .comm import Communicator, LocalComm, Request
from .data_parallel import DataParallel, share
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
