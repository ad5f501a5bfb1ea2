"""The examples in docstrings are true."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import thalweg

# The optimizers' examples share a namespace, which tests/test_optim.py gives them.
MODULES = [
    module.name
    for module in pkgutil.walk_packages(thalweg.__path__, "thalweg.")
    if not module.name.startswith(("thalweg.optim", "thalweg.__main__"))
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in(name: str) -> None:
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0
