"""Import strings, "module:name": how configurations and specifications name a user's own classes."""

import importlib
from typing import Any


def load_object(target: str) -> Any:
    """What the import string "module:name" names. ValueError when the module or the name is not there."""
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
