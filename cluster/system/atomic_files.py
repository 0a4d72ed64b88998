"""Writes files and folders atomically: a crash leaves either the whole or nothing."""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file under a temporary name beside `path`, flush it to disk and rename it. On failure nothing is left behind."""
    # In the same folder, since a rename is atomic only within one file system. With the process id, since several runs may write
    # beside each other.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            # Before the rename: otherwise a power cut may keep the new name and lose the bytes.
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and flush it to disk."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_folder(path: Path, files: Mapping[str, bytes], write: Callable[[Path, bytes], object] = write_synced) -> None:
    """Write a folder of files under a temporary name beside `path` and rename it, replacing a folder that is there.

    After an OSError nothing is left behind; what a crash leaves is removed by the next `sweep`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        for name, data in files.items():
            write(temporary / name, data)
        # The names in a folder are data of the folder, which is synced by itself; below, so is the new name in its parent.
        _sync_folder(temporary)
        # A folder that is not empty cannot be replaced by a rename, so the old one goes first, in one step.
        remove_folder(path)
        temporary.rename(path)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _sync_folder(path.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder if it exists, without ever leaving a part of it under its name."""
    if path.exists():
        # Renamed first: a crash in the middle of rmtree would leave a checkpoint that looks like one and is damaged.
        temporary = path.with_name(f".{path.name}.{os.getpid()}.old.tmp")
        path.rename(temporary)
        shutil.rmtree(temporary)


def sweep(folder: Path) -> None:
    """Remove what crashes during `write_folder` and `remove_folder` have left in a folder."""
    # Both work under hidden names that end in .tmp, which nothing else in such a folder has.
    for path in folder.glob(".*.tmp"):
        shutil.rmtree(path)


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
