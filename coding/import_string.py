"""Loads objects by import string, "module:name", as configurations and specifications name them."""

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from distseq.coding.held_output import held_errors

WAY_OUT = "a program's own code belongs behind if __name__ == '__main__'"


def load_object(target: str) -> Any:
    """The object that the import string "module:name" refers to.

    ValueError, in one line, if the module or the name does not exist, or if the module fails or ends the program while it is
    imported. KeyboardInterrupt that names the module.
    """
    module, _, name = target.partition(":")
    if not name or not all(module.split(".")):
        raise ValueError(f"{target!r} is not an import string of the form module:name")
    found = _imported(target, module)
    try:
        return getattr(found, name)
    except AttributeError:
        missing = AttributeError(f"module {module} has no {name!r}{_hidden(module, found)}")
        raise ValueError(f"cannot import {target!r}: {missing}") from missing


def _imported(target: str, module: str) -> ModuleType:
    with held_errors() as held:
        try:
            return importlib.import_module(module)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"interrupted while module {module} was imported") from None
        except ImportError as error:
            raise ValueError(f"cannot import {target!r}: {_line(error)}") from error
        except SystemExit as stop:
            # argparse writes its usage before it exits; its last line says what it misses.
            said = [line.strip() for line in held.drop().splitlines() if line.strip()]
            why = [f"module {module} ends the program when it is imported: {_line(stop)}", *said[-1:], WAY_OUT]
            raise ValueError(f"cannot import {target!r}: {'; '.join(why)}") from stop
        except BaseException as error:  # importing runs the user's code, which may raise anything
            raise ValueError(f"cannot import {target!r}: {_line(error)}") from error


def _line(error: BaseException) -> str:
    message = " ".join(str(error).split())
    return message if type(error) is ModuleNotFoundError else f"{type(error).__name__}{message and f': {message}'}"


def _hidden(module: str, found: ModuleType) -> str:
    """A hint, for an installed module that hides a file of the same name in the current folder, which comes later on the path."""
    top = module.partition(".")[0]
    place = Path(os.path.realpath(getattr(sys.modules.get(top, found), "__file__", None) or os.devnull))
    for own in (Path.cwd() / f"{top}.py", Path.cwd() / top / "__init__.py"):
        if own.is_file() and own.resolve() != place:
            return f"; it is the installed one, {place}, which hides {own}: rename yours"
    return ""
