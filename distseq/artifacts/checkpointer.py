"""Writes a checkpoint every N jobs in the background, and keeps the newest K."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from distseq.artifacts.checkpoint import Checkpoint, encode, newest, numbered
from distseq.cluster.system.atomic_files import remove_folder, sweep, write_folder, write_synced
from distseq.cluster.system.background_writer import Writer
from distseq.config.schema import CheckpointConfig
from distseq.learners.learner import Learner

Write = Callable[[Path, bytes], object]


def write_checkpoint(
    folder: Path, jobs: int, files: Mapping[str, bytes], keep: int, write: Write = write_synced
) -> None:
    """Writes checkpoint number `jobs` atomically, then removes all but the newest `keep`."""
    # Temporary files of a run that was killed while writing.
    sweep(folder)
    write_folder(folder / f"{jobs:08d}", files, write)
    for _, path in numbered(folder)[keep:]:
        remove_folder(path)


class Checkpointer:
    """The CheckpointHook of a run.

    configuration: identity of the run; config: how often, and how many to keep; stopping: whether the run was asked to stop;
    write: writes one file, replaced by tests.

    A checkpoint that cannot be written is a warning, printed once for each reason, and training goes on: a full disk should not
    end a run of days.
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
        write: Write = write_synced,
    ) -> None:
        self._folder, self._learners, self._configuration = folder, learners, configuration
        self._config, self._console, self._stopping, self._write = config, console, stopping, write
        # One checkpoint may wait behind the one being written, then the loop waits: with every = 1 a crash costs a bounded
        # number of jobs (docs/decisions/008).
        self._writer, self._warned = Writer(), set[str]()
        self._steps, self._next_job = [0] * len(learners), 0
        self._written: int | None = None  # number of the newest checkpoint on disk; set by the writer's thread

    @property
    def jobs(self) -> int:
        """Total number of jobs applied."""
        return sum(self._steps)

    def begin(self, done: Sequence[int], next_job: int, *, resumed: bool) -> None:
        """Begins at these steps: writes checkpoint 0 of a new run, or removes what a resumed run has passed over."""
        self._steps, self._next_job = list(done), next_job
        # Checkpoint 0, so that a run that is killed before its first periodic one can be resumed like any other.
        if not resumed:
            self._submit()
            return
        self._written = self.jobs
        # Newer checkpoints are damaged, or the run would have been resumed from them; kept, they would push good ones out.
        for number, path in numbered(self._folder):
            if number > self.jobs:
                self._warn(self._writer.submit(partial(remove_folder, path)))

    def applied(self, done: Sequence[int], next_job: int) -> None:
        self._steps, self._next_job = list(done), next_job
        # Counted over all learners: what a crash costs is jobs to do again.
        if self._config.every and self.jobs % self._config.every == 0:
            self._submit()

    def failed(self, learner: int) -> int:
        """Returns the steps of a failed learner, after restoring the newest checkpoint if it broke in the middle of a step."""
        # In the middle of a step, nobody knows how much of it was made: its state is neither before nor after it.
        one = self._learners[learner]
        if not one.whole:
            self._warn(self._writer.flush())
            try:
                saved, _ = newest(self._folder)
            except ValueError as error:
                self._say(f"learner {one.name} broke in the middle of a step, and {error}")
            else:
                one.restore(saved.snapshots[one.name])
                self._steps[learner] = saved.steps[one.name]
        return self._steps[learner]

    def stopping(self) -> bool:
        return self._stopping()

    def finish(self) -> bool:
        """Writes the latest state if it is not on disk yet, and waits for it; False if it could not be written."""
        self._warn(self._writer.flush())
        if self._written != self.jobs:
            self._submit()
            self._warn(self._writer.flush())
        return self._written == self.jobs

    def close(self) -> None:
        """Ends the writer thread after what it was given; may be called twice."""
        self._warn(self._writer.close())

    def _submit(self) -> None:
        # A learner that broke in the middle of a step and could not be restored: `failed` has said so, and its state, of which
        # nobody knows how much of the step was made, must not be written.
        if not all(learner.whole for learner in self._learners):
            return
        steps = {learner.name: step for learner, step in zip(self._learners, self._steps, strict=True)}
        snapshots = {learner.name: learner.snapshot() for learner in self._learners}
        # Copied here, in the loop, while every learner is between two steps; only the writing is left to the thread.
        files = encode(Checkpoint(self._configuration, self._next_job, steps, snapshots))
        self._warn(self._writer.submit(partial(self._save, self.jobs, files)))

    def _save(self, jobs: int, files: Mapping[str, bytes]) -> None:
        """Runs in the writer's thread."""
        write_checkpoint(self._folder, jobs, files, self._config.keep, self._write)
        self._written = jobs

    def _warn(self, errors: Sequence[BaseException]) -> None:
        for error in errors:
            # Anything but a disk's error is a mistake in this program and must not pass as a warning.
            if not isinstance(error, OSError):
                raise error
            self._say(error.strerror or str(error))

    def _say(self, reason: str) -> None:
        if reason not in self._warned:
            self._warned.add(reason)
            line = f"warning: cannot write checkpoints to {self._folder}: {reason}; training goes on"
            self._console.print(line, highlight=False, soft_wrap=True)
