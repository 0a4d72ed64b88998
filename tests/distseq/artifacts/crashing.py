"""A run that is killed in the middle."""

from distseq.monitoring.observers import Silent


class CrashError(RuntimeError):
    """Kills a run."""


class CrashAfter(Silent):
    """Kills a run after so many jobs."""

    def __init__(self, jobs: int) -> None:
        self.left = jobs

    def job_applied(self, *job: object) -> None:
        self.left -= 1
        if not self.left:
            raise CrashError
