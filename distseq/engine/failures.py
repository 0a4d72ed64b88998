"""The record of a learner that was stopped by an error, and the exception that names such learners."""

from collections.abc import Sequence
from dataclasses import dataclass
from shlex import quote
from typing import Any


@dataclass(frozen=True)
class LearnerFailure:
    """A learner that was stopped, and why. Its fields are journal keys."""

    learner: str
    step: int  # the step that it could not make
    error: str  # one line
    host: str  # host of the worker; empty for an error in the master's process
    traceback: str = ""  # empty if the one line says everything

    def brief(self) -> dict[str, Any]:
        """The failure without its traceback, as the summary lists it."""
        return {"learner": self.learner, "step": self.step, "error": self.error, "host": self.host}

    def __str__(self) -> str:
        return f"learner {self.learner} failed at step {self.step}{self.host and f' on {self.host}'}: {self.error}"


class FailedError(RuntimeError):
    """Learners of a run have failed; the message is one line that names them and how to resume in `folder`."""

    def __init__(self, failed: Sequence[LearnerFailure], folder: str) -> None:
        super().__init__(f"{'; '.join(map(str, failed))}; go on with: distseq train --resume {quote(folder)}")


class UnwrittenError(RuntimeError):
    """Results of a run could not be written; the message is one line that names the file and the reason."""
