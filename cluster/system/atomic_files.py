"""Files and folders that are either there whole or not at all."""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file under a temporary name beside `path`, flush it to disk and rename it; on failure leave nothing behind."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_synced(path: Path, data: bytes) -> None:
    """Write a file through to the disk."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_folder(path: Path, files: Mapping[str, bytes], write: Callable[[Path, bytes], object] = write_synced) -> None:
    """Write a folder under a temporary name beside `path` and rename it, in place of one that is there.

    After an OSError nothing of it is left behind; what a crash leaves goes with the next `sweep`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        for name, data in files.items():
            write(temporary / name, data)
        _sync_folder(temporary)
        remove_folder(path)
        temporary.rename(path)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _sync_folder(path.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder, if it is there, so that no half of it is ever seen under its name."""
    if path.exists():
        temporary = path.with_name(f".{path.name}.{os.getpid()}.old.tmp")
        path.rename(temporary)
        shutil.rmtree(temporary)


def sweep(folder: Path) -> None:
    """Remove what crashes in the middle of `write_folder` and `remove_folder` have left in a folder."""
    for path in folder.glob(".*.tmp"):
        shutil.rmtree(path)


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
