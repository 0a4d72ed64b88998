"""Learners that were stopped because their rows or their steps failed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LearnerFailure:
    """A learner that is trained no further, and why."""

    learner: str
    step: int  # that it could not make
    error: str  # one line
    host: str  # of the worker; empty for an error in the master's process
    traceback: str = ""  # empty where the line says all

    def brief(self) -> dict[str, Any]:
        """Without the traceback."""
        return {"learner": self.learner, "step": self.step, "error": self.error, "host": self.host}

    def __str__(self) -> str:
        return f"learner {self.learner} failed at step {self.step}{self.host and f' on {self.host}'}: {self.error}"


class FailedError(RuntimeError):
    """Learners of a run have failed; one line that names them."""

    def __init__(self, failed: Sequence[LearnerFailure], folder: str) -> None:
        super().__init__(f"{'; '.join(map(str, failed))}; go on with: distseq train --resume {folder}")
