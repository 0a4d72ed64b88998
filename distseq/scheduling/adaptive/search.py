"""Which candidate is best on a trace: a short look at all of them, a long one at the best, and at the best one's neighbours."""

from collections.abc import Sequence
from dataclasses import replace

from distseq.cluster.trace import Trace
from distseq.scheduling.adaptive.candidates import Candidate
from distseq.scheduling.adaptive.cost import Estimate, Question, estimate, least_seconds
from distseq.scheduling.pipeline import Pipeline

FINALISTS = 6
LOOKS = 2  # at neighbours


class Selection:
    """Looks at one candidate each time `advance` is called, until it returns True. `always`: those that are looked at long.

    Where seconds count, a candidate that cannot be as quick as the quickest so far is passed over.
    """

    def __init__(
        self, trace: Trace, candidates: Sequence[Candidate], question: Question, always: Sequence[Candidate], most: int
    ) -> None:
        self.trace, self.question = trace, question
        self._least = {one: least_seconds(trace, one, question) for one in dict.fromkeys([*candidates, *always])}
        self._todo = sorted(self._least, key=self._least.__getitem__, reverse=True)
        self._always, self._most = always, most
        self._short: dict[Candidate, Estimate] = {}
        self.found: dict[Candidate, Estimate] = {}
        self._stage, self._quickest = 0, float("inf")
        self.messages = 0  # what the latest look has cost

    def advance(self) -> bool:
        """Look at the next one; whether that was the last."""
        if self._todo:
            one, long = self._todo.pop(), self._stage > 0
            latest = estimate(self.trace, one, self.question, long=long)
            (self.found if long else self._short)[one] = latest
            self.messages = latest.messages
            if not long and self.question.objective == "seconds":
                self._quickest = min(self._quickest, latest.seconds)
                self._todo = [c for c in self._todo if self._least[c] <= self._quickest]
        if not self._todo and self._stage <= LOOKS:
            self._stage += 1
            self._todo = [one for one in self._next() if one not in self.found]
        return not self._todo

    def _next(self) -> list[Candidate]:
        if self._stage == 1:
            short = sorted(self._short.values(), key=lambda one: one.value)
            return list(dict.fromkeys([*(one.candidate for one in short[:FINALISTS]), *self._always]))
        best = self.ranking[0].candidate
        return neighbours(best, self._most) if isinstance(best, Pipeline) else []

    @property
    def promising(self) -> list[Candidate]:
        """Those that a short look was taken at, best first."""
        return [one.candidate for one in sorted(self._short.values(), key=lambda one: one.value)]

    @property
    def ranking(self) -> list[Estimate]:
        """Those that were looked at long, best first; of equal ones the cheaper."""
        return sorted(self.found.values(), key=lambda one: (one.value, one.worker_seconds))


def neighbours(one: Pipeline, most: int) -> list[Candidate]:
    """Pipelines with a few parts more or less, or a copy more or less; at most so many parts."""
    steps = sorted({max(1, round(one.parts * f)) for f in (0.7, 0.85, 1.2, 1.4)} | {one.parts - 1, one.parts + 1})
    parts = [replace(one, parts=p) for p in steps if 1 <= p <= most]
    copies = [replace(one, copies=c) for c in (one.copies - 1, one.copies + 1) if c >= 1]
    return [*parts, *copies]


def select(trace: Trace, candidates: Sequence[Candidate], question: Question, most: int) -> list[Estimate]:
    """All of a selection at once: the ranking."""
    selection = Selection(trace, candidates, question, (), most)
    while not selection.advance():
        pass
    return selection.ranking
