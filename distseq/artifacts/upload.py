"""Copies a run folder to the folder of `[run] upload` when the run ends or stops: whole or not at all."""

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from distseq.cluster.system.atomic_files import remove_folder, write_whole
from distseq.config.upload_url import upload_folder

# In the run folder and so in its copy: by its id a resumed run knows the copy that it may replace.
MARK = "upload.json"
CONFIG = "config.toml"  # what every run folder has


class UploadError(Exception):
    """The run folder could not be copied; it is whole where it was written."""


@contextmanager
def uploaded(url: str, run: Path, say: Callable[[str], object]) -> Iterator[None]:
    """Copies the run folder to `url` when the block ends, in whatever way, if there is one then; "" copies nothing.

    ValueError, before the block, if it cannot be copied there; UploadError if it could not be, unless the block raises.
    """
    upload = Upload(url, run) if url else None
    try:
        yield
    except BaseException:
        # What the block raises says more than a copy that fails: that is only told.
        try:
            _copied(upload, say)
        except UploadError as error:
            say(f"warning: {error}")
        raise
    _copied(upload, say)


def _copied(upload: "Upload | None", say: Callable[[str], object]) -> None:
    # A run that never began has removed its folder.
    if upload is not None and (upload.run / CONFIG).exists():
        upload.copy()
        say(f"run folder copied to {upload.target}")


class Upload:
    """The copy of a run folder, URL/NAME. ValueError if it cannot be made there."""

    def __init__(self, url: str, run: Path) -> None:
        self.run, parent = run, upload_folder(url)
        self.target = parent / run.resolve().name
        if not parent.is_dir():
            raise ValueError(f"cannot upload to {url}: there is no folder {parent}: make it, or mount it")
        if not os.access(parent, os.W_OK | os.X_OK):
            raise ValueError(f"cannot upload to {url}: {parent} is not writable")
        if run.resolve() in parent.resolve().parents or run.resolve() == parent.resolve():
            raise ValueError(f"cannot upload to {url}: that is in the run folder {run} itself")
        # What a crash between the two renames of an earlier copy has left is the only whole copy.
        if self._old.exists() and not self.target.exists():
            self._old.rename(self.target)
        self._id = _id(run) or secrets.token_hex(8)
        # A run that is resumed where its copy is needs no other.
        self._in_place = self.target.resolve() == run.resolve()
        if not self._in_place and self.target.exists() and _id(self.target) != self._id:
            raise ValueError(
                f"cannot upload to {url}: {self.target} is not of this run: choose another name with --out"
            )

    @property
    def _old(self) -> Path:
        return self.target.with_name(f".{self.target.name}.old.tmp")

    def copy(self) -> None:
        """Copies the run folder, in place of an earlier copy. UploadError if that fails."""
        if self._in_place:
            return
        new = self.target.with_name(f".{self.target.name}.{self._id}.tmp")
        try:
            data = json.dumps({"id": self._id, "to": str(self.target)}).encode()
            write_whole(self.run / MARK, lambda file: file.write(data))
            remove_folder(new)
            # Hidden files are the lock of the run, and writes that were cut off.
            shutil.copytree(self.run, new, ignore=shutil.ignore_patterns(".*"), copy_function=_copy)
            self._put(new)
        except (OSError, shutil.Error) as error:
            shutil.rmtree(new, ignore_errors=True)
            raise UploadError(
                f"the run folder could not be copied to {self.target}: {_reason(error)}; it is whole in {self.run}"
            ) from error

    def _put(self, new: Path) -> None:
        """Puts a whole copy in place of the one before."""
        # Another run may have put its folder there while this one was running.
        if self.target.exists() and _id(self.target) != self._id:
            raise OSError(f"{self.target} is now another run's")
        if self.target.exists():
            remove_folder(self._old)
            self.target.rename(self._old)
        new.rename(self.target)
        remove_folder(self._old)


def _copy(source: str, target: str) -> str:
    """One file, flushed to the disk: after the rename a power cut must not leave an empty one."""
    shutil.copy2(source, target)
    with open(target, "rb+") as file:
        os.fsync(file.fileno())
    return target


def _id(folder: Path) -> str | None:
    try:
        found = json.loads((folder / MARK).read_bytes())["id"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) else None


def _reason(error: Exception) -> str:
    # copytree gathers what went wrong with each file: [(source, target, reason), ...]
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list):
        return str(error.args[0][0][-1])
    return getattr(error, "strerror", None) or str(error)
