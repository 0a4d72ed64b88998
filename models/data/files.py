"""Finds and checks the files of data, before a reader opens them."""

import os
import stat
from pathlib import Path
from typing import NoReturn


def check_file(what: str, path: str) -> None:
    """ValueError, naming `what` it is, unless `path` is a file that can be read."""
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISREG(mode):
            with open(path, "rb"):
                return
    except OSError as error:
        raise ValueError(f"can't read {what}: {error.strerror}") from None
    # A NUL in the name.
    except ValueError as error:
        raise ValueError(f"can't read {what}: {error}") from None
    # Opening a pipe would wait for a writer, and every host has to read the same bytes.
    raise ValueError(f"can't read {what}: {'Is a directory' if stat.S_ISDIR(mode) else 'it is not a regular file'}")


def files_below(spec: str, root: Path) -> list[Path]:
    """Every file below a folder. Links are followed. ValueError for a link or folder that can't be read."""

    def refuse(error: OSError) -> NoReturn:
        raise ValueError(f"can't read data {spec!r}: {error.filename}: {error.strerror}")

    found: list[Path] = []
    above: dict[str, tuple[tuple[int, int], ...]] = {str(root): (_identity(os.stat(root)),)}
    for folder, folders, files in os.walk(root, onerror=refuse, followlinks=True):
        for name in folders:
            below = os.path.join(folder, name)
            here = _identity(os.stat(below))
            # Without an end otherwise: os.walk does not notice a folder that it is already in.
            if here in above[folder]:
                raise ValueError(f"can't read data {spec!r}: {below} is a link to a folder that it lies in")
            above[below] = (*above[folder], here)
        for name in files:
            path = os.path.join(folder, name)
            if os.path.exists(path):
                found.append(Path(path))
            # Hidden ones are how editors mark a file that is open.
            elif not name.startswith("."):
                raise ValueError(f"can't read data {spec!r}: {path} is a link to nothing")
    return found


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
