"""Receives a run folder in windows: resumed where an earlier try ended, verified by digests, and put in place at once."""

import base64
import binascii
import hashlib
import json
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from distseq.cli.fetch.sender_script import CHUNK, MARK
from distseq.cluster.errors import PoolError

TRIES = 3  # times that files may change while they are copied, as those of a run that goes on do


class File(NamedTuple):
    """A file of the run folder as it is on the cluster."""

    size: int
    sha256: str


class Window(NamedTuple):
    """What one answer of the cluster holds."""

    files: Mapping[str, File]
    received: int  # bytes
    end: str  # "all", "more", or "changed"


def receive(target: Path, ask: Callable[[Mapping[str, int]], str], say: Callable[[str], object]) -> None:
    """Makes the folder `target` from the answers of `ask`, which is told how many bytes of each file are here.

    ValueError for a target that exists, or when the cluster has no such run; PoolError when what comes is damaged.
    """
    check_target(target)
    staging = target.with_name(f".{target.name}.fetch")
    staging.mkdir(parents=True, exist_ok=True)
    tries = 0
    while True:
        have = {path.relative_to(staging).as_posix(): path.stat().st_size for path in _files(staging)}
        try:
            window = take(ask(have), staging)
        except ValueError:
            if not have:
                shutil.rmtree(staging)
            raise
        if window.end == "more" and window.received:
            done = sum(have.values()) + window.received
            say(f"{done:,} of {sum(file.size for file in window.files.values()):,} bytes")
            continue
        if window.end == "all" and not _remove_wrong(staging, window.files):
            # In one step: what lies under the name of the target is whole.
            staging.rename(target)
            return
        tries += 1
        if tries == TRIES:
            raise PoolError(
                f"the run changes while it is copied: fetch it again, which goes on with what is in {staging}"
            )


def check_target(target: Path) -> None:
    """ValueError unless the target can be made."""
    if target.exists():
        raise ValueError(f"{target} exists: choose another folder with --out")
    if not target.name:
        raise ValueError(f"{target} is no name for a folder: choose one with --out")


def take(text: str, staging: Path) -> Window:
    """Writes the data of an answer into the folder. PoolError for an answer that is damaged, ValueError for a refusal."""
    files: dict[str, File] = {}
    received = 0
    for record in _records(text):
        match record:
            case {"error": str(reason)}:
                raise ValueError(reason)
            case {"file": str(path), "size": int(size), "sha256": str(sha256)} if _inside(path) and size >= 0:
                files[path] = File(size, sha256)
            case {"data": str(path), "at": int(at), "zlib": str(packed)} if path in files:
                if not received:
                    _check_room(staging, files)
                received += _write(staging / path, at, _unpacked(packed), files[path].size)
            case {"end": str(end)}:
                return Window(files, received, end)
            case _:
                raise PoolError(f"the cluster's answer is damaged: {str(record)[:80]}")
    raise PoolError(
        "the cluster's answer ends too early: the job that sends the run was stopped, or its log was cut off"
    )


def _records(text: str) -> Iterator[Any]:
    # Found by their mark: Ray prints lines of its own between them.
    for line in text.splitlines():
        if line.startswith(MARK):
            try:
                yield json.loads(line.removeprefix(MARK))
            except ValueError:
                raise PoolError(f"the cluster's answer is damaged: {line[:80]}") from None


def _inside(path: str) -> bool:
    """Whether a path stays in the folder that it is relative to: a cluster must not write where it likes."""
    parts = PurePosixPath(path).parts
    return bool(parts) and not PurePosixPath(path).is_absolute() and ".." not in parts and "\0" not in path


def _unpacked(packed: str) -> bytes:
    try:
        # At most CHUNK bytes, however much a hostile stream would unfold to.
        data = zlib.decompressobj().decompress(base64.b64decode(packed, validate=True), CHUNK + 1)
    except (binascii.Error, zlib.error) as error:
        raise PoolError(f"the cluster's answer is damaged: {error}") from None
    if len(data) > CHUNK:
        raise PoolError("the cluster's answer is damaged: a piece is too long")
    return data


def _write(path: Path, at: int, data: bytes, size: int) -> int:
    if not 0 <= at <= size - len(data):
        raise PoolError(f"the cluster's answer is damaged: {path.name} has no bytes at {at}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "r+b" if path.exists() else "xb") as file:
        file.seek(at)
        file.write(data)
    return len(data)


def _check_room(staging: Path, files: Mapping[str, File]) -> None:
    wanted, free = sum(file.size for file in files.values()), shutil.disk_usage(staging).free
    here = sum(path.stat().st_size for path in _files(staging))
    if wanted - here > free:
        raise ValueError(f"the run has {wanted:,} bytes, and {staging.parent} has room for {free:,}")


def _remove_wrong(staging: Path, files: Mapping[str, File]) -> list[Path]:
    """Removes files that differ from the cluster's, so that they are fetched again, and files that it does not have."""
    for name, file in files.items():
        if file.size == 0:
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            (staging / name).touch()
    named = {staging / name: file for name, file in files.items()}
    wrong = [path for path in _files(staging) if path not in named]
    for path in wrong:
        path.unlink()
    differing = [path for path, file in named.items() if not path.is_file() or _differs(path, file)]
    for path in differing:
        path.unlink(missing_ok=True)
    return differing


def _differs(path: Path, file: File) -> bool:
    if path.stat().st_size != file.size:
        return True
    with open(path, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest() != file.sha256


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
