"""Many processes as one training run: the same script alone and under mpirun."""

from .comm import Communicator, LocalComm, Request
from .launch import world

__all__ = [
    "Communicator",
    "LocalComm",
    "Request",
    "world",
]
