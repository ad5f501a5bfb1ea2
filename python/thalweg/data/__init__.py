"""Data sets, transforms and mini-batches.

>>> train, validation, test = digits()
>>> train.x.shape[1], train.classes
(64, 10)
"""

from .arrays import ArrayDataset, Splits, split_off
from .datasets import cifar10, digits, mnist, npz
from .formats import DataError, read_cifar10, read_idx, read_npz
from .loaders import DataLoader
from .samplers import InOrder, PermutedBatches, PermutedSamples, Sampler
from .transforms import Standardise, standardise

__all__ = [
    "ArrayDataset",
    "DataError",
    "DataLoader",
    "InOrder",
    "PermutedBatches",
    "PermutedSamples",
    "Sampler",
    "Splits",
    "Standardise",
    "cifar10",
    "digits",
    "mnist",
    "npz",
    "read_cifar10",
    "read_idx",
    "read_npz",
    "split_off",
    "standardise",
]
