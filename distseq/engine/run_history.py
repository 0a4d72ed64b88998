"""The history of a run before it was resumed: sums over the records of its journal."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from distseq.engine.journal import Record

KEPT = 1000  # jobs of a learner that are remembered, to go back by


@dataclass(frozen=True)
class RunHistory:
    """The part of a run before it was resumed, from its journal."""

    jobs: int = 0  # whose steps are in the checkpoint
    losses: Mapping[str, Sequence[float]] = field(default_factory=dict)  # learner -> training losses of its latest jobs
    rounds: int = 0
    waits: int = 0  # rounds that lasted beyond their cutoff
    seconds: float = 0.0  # sum over its pools
    exact: bool = True  # False if any part of the run was not exact


class _History:
    """Sums over the records of a journal, of which it keeps a bounded number."""

    def __init__(self) -> None:
        # Learner -> step and loss of its latest jobs. A resumed run goes back by a few steps, which are done again.
        self.latest: dict[str, deque[tuple[int, float | None]]] = {}
        self.jobs: dict[str, int] = {}  # learner -> jobs that count; steps are applied in order, from 0
        self.rounds, self.waits, self.seconds, self.pool, self.exact = 0, 0, 0.0, 0.0, True

    def add(self, record: Record) -> None:
        """Counts a record. KeyError, TypeError or ValueError, with nothing changed, for one that is none."""
        kind, exact = record["kind"], bool(record.get("exact", True))
        if kind == "resume":
            # Jobs that the resumed run did again would otherwise count twice; the seconds spent on them count, because they
            # passed.
            self.go_back({str(name): int(step) for name, step in record["steps"].items()})
            self.seconds, self.pool = self.seconds + self.pool, 0.0
        elif kind == "job":
            name, step, decoded = str(record["learner"]), int(record["step"]), _seconds(record["decoded"])
            # A learner of the user's own may return other metrics or none.
            loss = float(record["loss"]) if "loss" in record else None
            self.pool = max(self.pool, decoded)
            self.latest.setdefault(name, deque(maxlen=KEPT)).append((step, loss))
            self.jobs[name] = step + 1
        elif kind == "round":
            waited, ended = bool(record["waited"]), _seconds(record["ended"])
            self.rounds, self.waits, self.pool = self.rounds + 1, self.waits + waited, max(self.pool, ended)
        # Both "run" and "resume" records have it: a run is exact only if all its parts are (docs/decisions/013).
        self.exact = self.exact and exact

    def go_back(self, steps: Mapping[str, int]) -> None:
        """Forgets the jobs that are not among the first `steps` of their learner."""
        for name, jobs in self.latest.items():
            self.jobs[name] = min(self.jobs[name], steps.get(name, 0))
            while jobs and jobs[-1][0] >= self.jobs[name]:
                jobs.pop()


def _seconds(value: Any) -> float:
    if not isfinite(seconds := float(value)):
        raise ValueError("a time is finite")
    return seconds


def run_history(
    records: Iterable[Record], steps: Mapping[str, int], damaged: Callable[[str], object] | None = None
) -> RunHistory:
    """The history of a run whose learners are at these steps, learner -> steps made.

    damaged: told of each record that is not one of a run, which is left out; without it, ValueError.
    """
    history = _History()
    for record in records:
        try:
            history.add(record)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            text = f"{str(record)[:80]} is not a record of a run"
            if damaged is None:
                raise ValueError(text) from None
            damaged(text)
    history.go_back(steps)
    losses = {name: [loss for _, loss in own if loss is not None] for name, own in history.latest.items()}
    seconds = history.seconds + history.pool
    return RunHistory(sum(history.jobs.values()), losses, history.rounds, history.waits, seconds, history.exact)
