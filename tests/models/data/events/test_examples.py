"""The examples of the docstrings run."""

import doctest
import importlib
import pkgutil

import pytest

from distseq.models.data import events

MODULES = sorted(found.name for found in pkgutil.walk_packages(events.__path__, f"{events.__name__}."))


@pytest.mark.parametrize("name", [*MODULES, "distseq.coding.npy_file"])
def test_the_examples_of_a_module_run(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_the_modules_are_found() -> None:
    assert "distseq.models.data.events.readers.tgb" in MODULES
