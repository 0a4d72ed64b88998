"""Writes files and folders atomically: a crash leaves either the whole or nothing."""

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

Write = Callable[[Path, bytes], object]


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


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file, which the operating system brings to disk when it likes."""
    path.write_bytes(data)


def write_folder(
    path: Path,
    files: Mapping[str, bytes],
    write: Write = write_bytes,
    linked: Mapping[str, Path] | None = None,
    copied: Mapping[str, Path] | None = None,
) -> None:
    """Write a folder of files under a temporary name beside `path`, flush it to disk and rename it, replacing what is there.

    linked, copied: names of further files, and existing files that get these names, too, or are copied.

    After an OSError nothing is left behind; what a crash leaves is removed by the next `sweep`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        for name, data in files.items():
            write(temporary / name, data)
        copies = {name: source for name, source in (linked or {}).items() if not _linked(source, temporary / name)}
        for name, source in {**copies, **(copied or {})}.items():
            write(temporary / name, source.read_bytes())
        # After all have been written, which takes two thirds of the time of one by one. What is linked was synced before.
        for name in (*files, *copies, *(copied or {})):
            _sync(temporary / name)
        # The names in a folder are data of the folder, which is synced by itself; below, so is the new name in its parent.
        _sync(temporary)
        # A folder that is not empty cannot be replaced by a rename, so the old one goes first, in one step.
        remove_folder(path)
        temporary.rename(path)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _sync(path.parent)


def _linked(source: Path, path: Path) -> bool:
    """Give a file a second name; False where the file system has no hard links. FileNotFoundError if the file is gone."""
    try:
        os.link(source, path)
    except FileNotFoundError:
        raise
    except OSError:
        return False
    return True


def remove_folder(path: Path) -> None:
    """Remove a folder if it exists, without ever leaving a part of it under its name."""
    if path.exists():
        # Renamed first: a crash in the middle of rmtree would leave a checkpoint that looks like one and is damaged.
        temporary = path.with_name(f".{path.name}.{os.getpid()}.old.tmp")
        path.rename(temporary)
        shutil.rmtree(temporary)


def sweep(folder: Path) -> None:
    """Remove what crashes during `write_whole`, `write_folder` and `remove_folder` have left in a folder."""
    # All work under hidden names that end in .tmp, which nothing else in such a folder has.
    for path in folder.glob(".*.tmp"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def make_folders(path: Path) -> list[Path]:
    """Make a folder and the parents that do not exist. Returns those that this very call has made, the innermost first."""
    made: list[Path] = []
    for folder in [*reversed(path.parents), path]:
        if folder.is_dir():
            continue
        try:
            folder.mkdir()
            made.insert(0, folder)
        except OSError as error:
            # Where another process has made it just now, it is that process's to remove.
            if not folder.is_dir():
                remove_empty(made)
                file = NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
                raise (file if folder.exists() else error) from None
    return made


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove folders, in this order, except those that hold something or are gone."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _sync(path: Path) -> None:
    """Flush a file or folder to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
