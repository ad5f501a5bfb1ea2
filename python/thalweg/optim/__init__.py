"""Optimizers on anyone's arrays, PyTorch's names and defaults; one native call per step."""

from . import lr_scheduler
from .base import Optimizer
from .grad_scaler import GradScaler
from .layerwise import LAMB, LARS
from .rules import Adadelta, Adagrad, Adam, Adamax, AdamW, NAdam, RAdam, RMSprop
from .sgd import SGD
from .sign import Lion, Rprop

__all__ = [
    "LAMB",
    "LARS",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "GradScaler",
    "Lion",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Rprop",
    "lr_scheduler",
]
