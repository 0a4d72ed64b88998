"""The folder of one run: config.toml, journal.jsonl, checkpoints/, weights/ and summary.json."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from distseq.artifacts.checkpoint import numbered
from distseq.cluster.system.atomic_files import make_folders, remove_empty, sweep, write_whole
from distseq.cluster.system.folder_lock import NAME, FolderLock, HeldError
from distseq.config.schema import Config
from distseq.config.toml_file import to_toml
from distseq.engine.failures import UnwrittenError
from distseq.engine.journal import FileJournal, read_journal

CONFIG, JOURNAL, CHECKPOINTS = "config.toml", "journal.jsonl", "checkpoints"
WEIGHTS, SUMMARY = "weights", "summary.json"
BEGINNING = {NAME, CONFIG, JOURNAL, CHECKPOINTS}  # what a run has before its first checkpoint
Say = Callable[[str], object]


class RunFolder:
    """A run folder, locked by this process until `close`.

    say: told of what does not end the run, in a line.

    Made by `new`, `next_of` or `opened`.
    """

    def __init__(self, path: Path, say: Say) -> None:
        self.path, self._say = path, say
        self._lock: FolderLock | None = None
        self._journal: FileJournal | None = None
        # What this process has made, which `discard` removes.
        self._files: list[Path] = []
        self._folders: list[Path] = []

    @classmethod
    def new(cls, path: Path, config: Config, say: Say) -> "RunFolder":
        """A folder that is new, empty, or of a run that was killed before it kept anything.

        ValueError, with nothing left behind, when it holds anything else or cannot be written.
        """
        check_free(path)
        folder = cls(path, say)
        try:
            folder._folders = make_folders(path)
            folder._take()
            # Once more: another process may have begun, and even ended, since it was looked at.
            check_free(path)
            folder.begin(config)
        except OSError as error:
            folder.discard()
            raise ValueError(f"cannot write run folder {path}: {error.strerror or error}") from None
        except BaseException:
            folder.discard()
            raise
        return folder

    @classmethod
    def next_of(cls, name: str, config: Config, say: Say) -> "RunFolder":
        """The first of runs/NAME-1, runs/NAME-2, ... that does not exist."""
        runs = Path("runs")
        try:
            made = make_folders(runs)
            path = next(path for k in count(1) if _made(path := runs / f"{name}-{k}"))
        except OSError as error:
            raise ValueError(f"cannot write run folder in {runs}: {error.strerror}") from None
        try:
            folder = cls.new(path, config, say)
        except BaseException:
            remove_empty([path, *made])
            raise
        folder._folders = [path, *made]
        return folder

    @classmethod
    def opened(cls, path: Path, say: Say) -> "RunFolder":
        """The folder of an earlier run, to be resumed. ValueError when another process uses it.

        A folder that cannot be written can be read: the run in it may be complete.
        """
        folder = cls(path, say)
        if not path.is_dir():
            return folder
        try:
            folder._take()
            # Temporary files of a run that was killed while it wrote.
            for place in (path, folder.checkpoints, path / WEIGHTS):
                sweep(place)
        except HeldError as error:
            raise ValueError(f"cannot resume in run folder {path}: {error}") from None
        # Whoever wants to write finds out in `open_journal`.
        except OSError:
            pass
        return folder

    def _take(self) -> None:
        self._lock = FolderLock(self.path)
        if self._lock.missing is not None:
            self._say(
                f"warning: cannot lock run folder {self.path}: {self._lock.missing}; make sure that no other process uses it"
            )

    @property
    def begun(self) -> bool:
        """Whether there is something to go on from, or was once: a checkpoint, or jobs in the journal."""
        return _holds_run(self.path)

    @property
    def journal(self) -> FileJournal:
        assert self._journal is not None, "it is open from `begin` or `go_on` on"
        return self._journal

    @property
    def checkpoints(self) -> Path:
        return self.path / CHECKPOINTS

    def begin(self, config: Config) -> None:
        """Writes the configuration and opens the journal of a new run. OSError."""
        # Noted before they are written: a file that is half there is removed, too.
        self._files = [self.path / CONFIG, self.path / JOURNAL]
        self._begin(config)

    def begin_again(self, config: Config) -> None:
        """Begins a run that was killed before it kept anything. ValueError when the folder cannot be written."""
        try:
            self._begin(config)
        except OSError as error:
            raise ValueError(f"cannot resume in run folder {self.path}: {error.strerror or error}") from None

    def _begin(self, config: Config) -> None:
        sweep(self.path)
        # A journal without a job: of a run that was killed before its first checkpoint.
        (self.path / JOURNAL).unlink(missing_ok=True)
        self._write_config(config)
        self._journal = FileJournal(self.path / JOURNAL, warn=self._say)

    def open_journal(self) -> None:
        """Opens the journal of the earlier run. ValueError when the folder cannot be written."""
        try:
            if self._lock is None:
                self._take()
            self._journal = FileJournal(self.path / JOURNAL, resume=True, warn=self._say)
        except OSError as error:
            raise ValueError(f"cannot resume in run folder {self.path}: {error.strerror or error}") from None

    def go_on(self, config: Config) -> None:
        """Replaces the configuration of an earlier run, which is resumed with it, and removes its summary. OSError."""
        self._write_config(config)
        # A summary marks a complete run (distseq.artifacts.resume.complete), which this is not until it ends again.
        (self.path / SUMMARY).unlink(missing_ok=True)

    def _write_config(self, config: Config) -> None:
        write_whole(self.path / CONFIG, lambda file: file.write(to_toml(config).encode()))

    def close(self) -> None:
        """Closes the journal and frees the lock; may be called twice."""
        if self._journal is not None:
            self._journal.close()
        if self._lock is not None:
            self._lock.release()

    def discard(self) -> None:
        """Removes what this process has made, for a run that never began, and closes it."""
        try:
            for path in self._files:
                # What the disk does not let go of would hide the error that ended the run.
                with suppress(OSError):
                    path.unlink(missing_ok=True)
        finally:
            self.close()
        remove_empty(self._folders)

    def save_weights(self, name: str, state: Mapping[str, Any]) -> None:
        """Writes a state dict of tensors as weights/NAME.safetensors; tied tensors are written once for each name.

        UnwrittenError when the disk does not take it.
        """
        from safetensors.torch import save

        folder = self.path / WEIGHTS
        # Cloned, because safetensors refuses tensors that share memory, as tied ones do.
        data = save({key: tensor.detach().clone().contiguous() for key, tensor in state.items()})
        self._write(folder / f"{name}.safetensors", data)

    def save_summary(self, summary: Mapping[str, Any]) -> None:
        """Writes summary.json. UnwrittenError when the disk does not take it."""
        self._write(self.path / SUMMARY, json.dumps(summary, indent=1).encode())

    def _write(self, path: Path, data: bytes) -> None:
        try:
            path.parent.mkdir(exist_ok=True)
            write_whole(path, lambda file: file.write(data))
        except OSError as error:
            raise UnwrittenError(f"cannot write {path}: {error.strerror or error}") from None


def check_free(path: Path) -> None:
    """ValueError unless a run may begin in a folder: it is new, empty, or of a run that was killed before it kept anything."""
    try:
        names = {one.name for one in path.iterdir()} if path.exists() else set()
    except OSError as error:
        raise ValueError(f"cannot write run folder {path}: {error.strerror}") from None
    if names and _holds_run(path):
        raise ValueError(f"run folder {path} is not empty: choose another with --out, or go on with --resume {path}")
    # Only a run leaves a lock: without one the files are somebody's own, such as a config file beside its data.
    if names and (NAME not in names or {one for one in names if not _temporary(one)} - BEGINNING):
        raise ValueError(f"run folder {path} is not empty: choose another with --out")


def _made(path: Path) -> bool:
    """Makes a folder; False if it exists. Of several processes that start at once, one makes it."""
    try:
        path.mkdir()
    except FileExistsError:
        return False
    return True


def _temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith(".tmp")


def _holds_run(path: Path) -> bool:
    if numbered(path / CHECKPOINTS):
        return True
    try:
        records = read_journal(path / JOURNAL, damaged=lambda line: None)
        return any(record.get("kind") == "job" for record in records)
    except OSError:
        return False
