"""Reads .npz files: sizes are compared, and bounded, before anything is unpacked or allocated. Never unpickles."""

import os
import zipfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from distseq.coding.npy_file import check_header

# Bytes that one byte of a deflated member can unpack to, at most (258 bytes in 2 bits).
DEFLATE = 1032
# Characters of a name that a message repeats, names that it lists, and characters of what a library says.
LONGEST, LISTED, SAID = 100, 10, 300


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a file by name. ValueError, in one line, for a file that is none or is damaged; OSError if it can't be read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/a.npz", x=np.arange(3))
    ...     read_npz(f"{folder}/a.npz")
    {'x': array([0, 1, 2])}
    """
    # Opening it raises an OSError, with a message of its own, if the file is missing or must not be read.
    with open(path, "rb") as file:
        if not zipfile.is_zipfile(file):
            file.seek(0)
            single = file.read(len(npy.MAGIC_PREFIX)) == npy.MAGIC_PREFIX
            raise ValueError(
                "the file holds a single array, not an .npz archive" if single else "it is not an .npz file"
            )
        try:
            with zipfile.ZipFile(file) as archive:
                _check_directory(archive.infolist())
                return {member.filename.removesuffix(".npy"): _array(archive, member) for member in archive.infolist()}
        except OSError:
            raise
        # zipfile, zlib and numpy raise nearly anything for a damaged file, depending on which bytes are wrong.
        except Exception as error:
            kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
            raise ValueError(kind + _short(" ".join(str(error).splitlines()[:1]), SAID)) from None


def _name(member: zipfile.ZipInfo) -> str:
    """How a message names the array of a member."""
    return _short(member.filename.removesuffix(".npy"), LONGEST)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}..."


def listed(names: Iterable[str]) -> str:
    """The names of a file's arrays for a message, which a damaged file must not make endless.

    >>> listed(["x", "y"])
    'x, y'
    """
    shown = [_short(name, LONGEST) for name in names]
    return ", ".join(shown[:LISTED]) + (f" and {len(shown) - LISTED} more" if len(shown) > LISTED else "")


def _check_directory(members: list[zipfile.ZipInfo]) -> None:
    """ValueError if the directory says what cannot be true, or more than the main memory holds."""
    count = Counter(member.filename.removesuffix(".npy") for member in members)
    for member in members:
        if count[member.filename.removesuffix(".npy")] > 1:
            raise ValueError(f"it has several arrays {_name(member)!r}")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"array {_name(member)!r} is packed in a way that numpy does not know")
        if member.file_size > DEFLATE * (member.compress_size + 1):
            raise ValueError(f"array {_name(member)!r} is damaged: it cannot be as large as the file says")
    size, most = sum(member.file_size for member in members), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if size > most:
        raise ValueError(f"its arrays take {size / 1e9:.1f} GB, and this machine has {most / 1e9:.1f} GB of memory")


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as file:
        check_header(file, repr(_name(member)), member.file_size)
    with archive.open(member) as file:
        return np.asarray(npy.read_array(file, allow_pickle=False))
