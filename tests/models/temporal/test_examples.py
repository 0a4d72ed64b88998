"""The examples of the docstrings run."""

import doctest
import importlib
import pkgutil

import pytest

from distseq.models import temporal

MODULES = sorted(found.name for found in pkgutil.walk_packages(temporal.__path__, f"{temporal.__name__}."))


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_the_modules_are_found() -> None:
    assert "distseq.models.temporal.exact" in MODULES
