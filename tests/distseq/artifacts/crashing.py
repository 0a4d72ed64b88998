"""A run that is killed in the middle."""

from distseq.engine.interfaces import Observer


class CrashError(RuntimeError):
    """Kills a run."""


class CrashAfter(Observer):
    """Kills a run after so many jobs."""

    def __init__(self, jobs: int) -> None:
        self.left = jobs

    def job_applied(self, *job: object) -> None:
        self.left -= 1
        if not self.left:
            raise CrashError
