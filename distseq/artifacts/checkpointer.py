"""Writes a checkpoint every N jobs in the background, and keeps the newest K."""

import errno
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from distseq.artifacts.checkpoint import STATE, Part, file_name, newest, numbered, part, state_file
from distseq.cluster.system.atomic_files import Write, remove_folder, sweep, write_bytes, write_folder
from distseq.cluster.system.background_writer import Writer
from distseq.cluster.system.pace import Pace
from distseq.config.schema import CheckpointConfig
from distseq.learners.learner import Learner
from distseq.learners.state_files import Tensors, file_of, separate
from distseq.monitoring.console import say

FULL = {errno.ENOSPC, errno.EDQUOT}
# Without `every`: the fewest jobs between two checkpoints, and the share of the time that they may take. Hundreds of small
# learners make 50 steps in the time of a checkpoint or two, and half a run's time would be spent on them.
EVERY, SHARE = 50, 0.05
# A checkpoint shares the files of learners that have not changed with the one before the last, never with the last, from which
# they are copied: of two neighbours a damaged file spoils one only.
APART = 2


Versions = Mapping[str, tuple[int, int]]  # learner -> number of its changes, and its step


class BaseGoneError(OSError):
    """The checkpoint to share files with could not be written itself, which was said then."""


@dataclass(frozen=True)
class Draft:
    """A checkpoint to be written."""

    index: int  # among those of this process
    jobs: int  # its number
    next_job: int
    versions: Versions
    changed: Mapping[
        str, tuple[Tensors, dict[str, Any]]
    ]  # learners whose files are written, as `separate` returns them
    before: int | None  # index of the checkpoint before it, to take the others from


@dataclass(frozen=True)
class Sketch:
    """What is remembered of a checkpoint, without its tensors."""

    index: int
    jobs: int
    versions: Versions
    parts: Mapping[str, Part]


def write_checkpoint(
    folder: Path,
    jobs: int,
    files: Mapping[str, bytes],
    keep: int,
    write: Write = write_bytes,
    linked: Mapping[str, Path] | None = None,
    copied: Mapping[str, Path] | None = None,
) -> None:
    """Writes checkpoint number `jobs` atomically, then removes all but the newest `keep`.

    linked, copied: further names of files, and files of earlier checkpoints that are given these names, or are copied.
    """
    # Temporary files of a run that was killed while writing.
    sweep(folder)
    write_folder(folder / f"{jobs:08d}", files, write, linked, copied)
    for _, path in numbered(folder)[keep:]:
        remove_folder(path)


class Checkpointer:
    """The CheckpointHook of a run.

    configuration: identity of the run; config: how often, and how many to keep; stopping: whether the run was asked to stop;
    when_trained: called after the last step, once the checkpoint of it is written; write: writes one file, replaced by tests.

    A checkpoint that cannot be written is a warning, printed once for each reason, and training goes on: a full disk should not
    end a run of days. On a full disk all checkpoints but the newest are removed, to make room for the next.
    """

    def __init__(
        self,
        folder: Path,
        learners: Sequence[Learner],
        configuration: str,
        config: CheckpointConfig,
        console: Console,
        stopping: Callable[[], bool],
        *,
        when_trained: Callable[[], object] = lambda: None,
        write: Write = write_bytes,
    ) -> None:
        self._folder, self._learners, self._configuration = folder, learners, configuration
        self._config, self._console, self._stopping, self._write = config, console, stopping, write
        self._when_trained = when_trained
        # One checkpoint may wait behind the one being written, then the loop waits: with every = 1 a crash costs a bounded
        # number of jobs (docs/decisions/008).
        self._writer, self._warned = Writer(), set[str]()
        self._steps, self._next_job = [0] * len(learners), 0
        self._submitted, self._last = 0, 0  # checkpoints, and the jobs in the last one
        self._pace = Pace(SHARE)
        self._latest: deque[Sketch] = deque(maxlen=APART)  # submitted since the last error
        # Of the writer's thread: the newest state on disk, and the latest checkpoints there.
        self._written: Versions | None = None
        self._on_disk: deque[Sketch] = deque(maxlen=1 if config.keep == 1 else APART)

    @property
    def jobs(self) -> int:
        """Total number of jobs applied."""
        return sum(self._steps)

    def begin(self, done: Sequence[int], next_job: int, *, resumed: bool) -> None:
        """Begins at these steps: writes checkpoint 0 of a new run, or removes what a resumed run has passed over."""
        self._steps, self._next_job = list(done), next_job
        self._last = self.jobs
        if not resumed:
            # Checkpoint 0, so that a run that is killed before its first periodic one can be resumed like any other. Before the
            # first job: a folder without a checkpoint is one of a run that never began.
            self._submit()
            self._warn(self._writer.flush())
            return
        self._written = self._versions()
        # Newer checkpoints are damaged, or the run would have been resumed from them; kept, they would push good ones out.
        for number, path in numbered(self._folder):
            if number > self.jobs:
                self._warn(self._writer.submit(partial(remove_folder, path)))

    def applied(self, done: Sequence[int], next_job: int) -> None:
        self._steps, self._next_job = list(done), next_job
        if self._due():
            self._submit()

    def _due(self) -> bool:
        """Whether it is time for a checkpoint."""
        # Jobs are counted over all learners: what a crash costs is jobs to do again.
        if self._config.every is None:
            return self.jobs - self._last >= EVERY and self._pace.due()
        return self._config.every > 0 and self.jobs % self._config.every == 0

    def failed(self, learner: int) -> int:
        """Returns the steps of a failed learner, after restoring the newest checkpoint if it broke in the middle of a step."""
        # In the middle of a step, nobody knows how much of it was made: its state is neither before nor after it.
        if not self._learners[learner].whole:
            self._take_back(learner)
        return self._steps[learner]

    def _take_back(self, learner: int) -> None:
        """Restores a learner from the newest checkpoint."""
        one = self._learners[learner]
        self._warn(self._writer.flush())
        try:
            saved, _ = newest(self._folder)
        except ValueError as error:
            one.whole = False
            self._say(f"learner {one.name} broke in the middle of a step, and {error}")
        else:
            one.restore(saved.snapshots[one.name])
            self._steps[learner] = saved.steps[one.name]

    def stopping(self) -> bool:
        return self._stopping()

    def trained(self) -> None:
        # Before the final evaluation, which may take long, or never end.
        self.finish()
        self._when_trained()

    def keep(self, done: Sequence[int], next_job: int, stepping: int | None) -> bool:
        """Writes the state in which an error has ended the run; False if it could not be written.

        stepping: the learner that may have been in the middle of a step.
        """
        self._steps, self._next_job = list(done), next_job
        for m, one in enumerate(self._learners):
            if m == stepping or not one.whole:
                self._take_back(m)
        return self.finish()

    def finish(self) -> bool:
        """Writes the latest state if it is not on disk yet, and waits for it; False if it could not be written."""
        self._warn(self._writer.flush())
        # A second time, since the first may have made room, and does not rely on earlier checkpoints after an error.
        for _ in range(2):
            if self._written != self._versions():
                self._submit()
                self._warn(self._writer.flush())
        return self._written == self._versions()

    def close(self) -> None:
        """Ends the writer thread after what it was given; may be called twice."""
        self._warn(self._writer.close())

    def _versions(self) -> Versions:
        return {one.name: (one.changes, step) for one, step in zip(self._learners, self._steps, strict=True)}

    def _submit(self) -> None:
        # A learner that broke in the middle of a step and could not be restored: `failed` has said so, and its state, of which
        # nobody knows how much of the step was made, must not be written.
        if not all(learner.whole for learner in self._learners):
            return
        # A folder that is written anew is no base for others.
        if any(draft.jobs == self.jobs for draft in self._latest):
            self._latest.clear()
        versions, before = self._versions(), self._latest[-1] if self._latest else None
        # Copied here, in the loop, while every learner is between two steps; the rest is left to the thread.
        with self._pace.taking():
            changed = {
                one.name: separate(one.snapshot())
                for one in self._learners
                if before is None or before.versions[one.name] != versions[one.name]
            }
        self._submitted, self._last = self._submitted + 1, self.jobs
        index = None if before is None else before.index
        draft = Draft(self._submitted, self.jobs, self._next_job, versions, changed, index)
        self._latest.append(Sketch(draft.index, draft.jobs, versions, {}))
        self._warn(self._writer.submit(partial(self._save, draft)))

    def _save(self, draft: Draft) -> None:
        """Runs in the writer's thread."""
        with self._pace.taking():
            self._write_draft(draft)

    def _write_draft(self, draft: Draft) -> None:
        if draft.before is None:
            self._on_disk.clear()
        elif not self._on_disk or self._on_disk[-1].index != draft.before:
            raise BaseGoneError
        known = self._on_disk[-1].parts if self._on_disk else {}
        files = {name: file_of(tensors) for name, (tensors, _) in draft.changed.items()}
        parts = {
            name: part(name, step, draft.changed[name][1], files[name]) if name in files else known[name]
            for name, (_, step) in draft.versions.items()
        }
        content = {file_name(name): data for name, data in files.items()}
        content[STATE] = state_file(self._configuration, draft.next_job, parts)
        linked, copied = self._unchanged(draft)
        try:
            write_checkpoint(self._folder, draft.jobs, content, self._config.keep, self._write, linked, copied)
        except OSError as error:
            self._on_disk.clear()
            if error.errno in FULL:
                self._make_room()
            raise
        self._on_disk.append(Sketch(draft.index, draft.jobs, draft.versions, parts))
        self._written = draft.versions

    def _unchanged(self, draft: Draft) -> tuple[dict[str, Path], dict[str, Path]]:
        """The files of learners that have not changed since the checkpoint before: those to link, and those to copy."""
        linked, copied = dict[str, Path](), dict[str, Path]()
        for name in draft.versions.keys() - draft.changed.keys():
            last, older = self._on_disk[-1], self._on_disk[0]
            # A single checkpoint is on its way out, and shares nothing with what stays.
            link = self._config.keep == 1 or (older is not last and older.versions[name] == draft.versions[name])
            source = older if link else last
            path = self._folder / f"{source.jobs:08d}" / file_name(name)
            (linked if link else copied)[file_name(name)] = path
        return linked, copied

    def _make_room(self) -> None:
        for _, path in numbered(self._folder)[1:]:
            remove_folder(path)

    def _warn(self, errors: Sequence[BaseException]) -> None:
        for error in errors:
            # Anything but a disk's error is a mistake in this program and must not pass as a warning.
            if not isinstance(error, OSError):
                raise error
            # What was submitted after it may lack the files that it was to write.
            self._latest.clear()
            if not isinstance(error, BaseGoneError):
                self._say(error.strerror or str(error))

    def _say(self, reason: str) -> None:
        if reason not in self._warned:
            self._warned.add(reason)
            line = f"warning: cannot write checkpoints to {self._folder}: {reason}; training goes on"
            say(self._console, line)
