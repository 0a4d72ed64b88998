"""Keeps a run: a checkpoint after every so many jobs, written in the background, the last few kept."""

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
    """Write checkpoint number `jobs` whole, then remove all but the newest `keep`."""
    sweep(folder)
    write_folder(folder / f"{jobs:08d}", files, write)
    for _, path in numbered(folder)[keep:]:
        remove_folder(path)


class Checkpointer:
    """The master's keeper. What cannot be written is a warning, once for each reason, and the run goes on."""

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
        self._writer, self._warned = Writer(), set[str]()
        self._steps, self._next_job = [0] * len(learners), 0
        self._written: int | None = None  # number of the newest on disk

    @property
    def jobs(self) -> int:
        """Jobs applied in all."""
        return sum(self._steps)

    def begin(self, done: Sequence[int], next_job: int, *, resumed: bool) -> None:
        """From these steps on. A run that is resumed from a checkpoint passes over newer ones: they are damaged and go."""
        self._steps, self._next_job = list(done), next_job
        if not resumed:
            self._submit()
            return
        self._written = self.jobs
        for number, path in numbered(self._folder):
            if number > self.jobs:
                self._warn(self._writer.submit(partial(remove_folder, path)))

    def applied(self, done: Sequence[int], next_job: int) -> None:
        self._steps, self._next_job = list(done), next_job
        if self._config.every and self.jobs % self._config.every == 0:
            self._submit()

    def failed(self, learner: int) -> int:
        """A learner that broke in the middle of a step goes back to the newest checkpoint: its own state is neither."""
        one = self._learners[learner]
        if not one.whole:
            self._warn(self._writer.flush())
            try:
                kept, _ = newest(self._folder)
            except ValueError as error:
                self._say(f"learner {one.name} broke in the middle of a step, and {error}")
            else:
                one.restore(kept.snapshots[one.name])
                self._steps[learner] = kept.steps[one.name]
        return self._steps[learner]

    def stopping(self) -> bool:
        return self._stopping()

    def finish(self) -> bool:
        """Write what is not on disk yet, and wait for it; whether it is."""
        self._warn(self._writer.flush())
        if self._written != self.jobs:
            self._submit()
            self._warn(self._writer.flush())
        return self._written == self.jobs

    def close(self) -> None:
        """End the writer, after what it was given; may be called twice."""
        self._warn(self._writer.close())

    def _submit(self) -> None:
        if not all(learner.whole for learner in self._learners):
            return  # said by `failed`
        steps = {learner.name: step for learner, step in zip(self._learners, self._steps, strict=True)}
        snapshots = {learner.name: learner.snapshot() for learner in self._learners}
        files = encode(Checkpoint(self._configuration, self._next_job, steps, snapshots))
        self._warn(self._writer.submit(partial(self._save, self.jobs, files)))

    def _save(self, jobs: int, files: Mapping[str, bytes]) -> None:
        """In the writer's thread."""
        write_checkpoint(self._folder, jobs, files, self._config.keep, self._write)
        self._written = jobs

    def _warn(self, errors: Sequence[BaseException]) -> None:
        for error in errors:
            if not isinstance(error, OSError):
                raise error
            self._say(error.strerror or str(error))

    def _say(self, reason: str) -> None:
        if reason not in self._warned:
            self._warned.add(reason)
            line = f"warning: cannot write checkpoints to {self._folder}: {reason}; training goes on"
            self._console.print(line, highlight=False, soft_wrap=True)
