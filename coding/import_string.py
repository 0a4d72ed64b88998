"""Loads objects by import string, "module:name", as configurations and specifications name them."""

import importlib
from typing import Any


def load_object(target: str) -> Any:
    """The object that the import string "module:name" refers to. ValueError if the module or the name does not exist."""
    module, _, name = target.partition(":")
    if not module or not name:
        raise ValueError(f"{target!r} is not an import string of the form module:name")
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"cannot import {target!r}: {error}") from None
    if not hasattr(found, name):
        raise ValueError(f"cannot import {target!r}: module {module} has no {name!r}")
    return getattr(found, name)
