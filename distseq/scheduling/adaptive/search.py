"""Finds the best candidate on a trace: short estimates of all, long ones of the finalists."""

from collections.abc import Sequence
from dataclasses import replace

from distseq.cluster.trace import Trace
from distseq.scheduling.adaptive.candidates import Candidate
from distseq.scheduling.adaptive.cost import Estimate, Question, estimate, least_seconds
from distseq.scheduling.pipeline import Pipeline

# Candidates that get a long estimate: short ones of pipelines are off by 10 % and more (docs/decisions/014), which the best
# six of a geometric grid cover.
FINALISTS = 6
# Times the neighbours of the best pipeline are tried, which refines the powers of two of the grid to single parts and copies.
LOOKS = 2


class Selection:
    """A search that estimates one candidate per call of `advance`, until that returns True.

    always: candidates that get a long estimate whatever their short one says.
    most: the most parts that a job may be cut into.

    The master calls `advance` between deliveries, so a step must be short. When the objective is seconds, a candidate whose
    lower bound exceeds the best estimate so far is skipped.
    """

    def __init__(
        self, trace: Trace, candidates: Sequence[Candidate], question: Question, always: Sequence[Candidate], most: int
    ) -> None:
        self.trace, self.question = trace, question
        self._least = {one: least_seconds(trace, one, question) for one in dict.fromkeys([*candidates, *always])}
        # Taken from the end: the most promising bound first, so that the later ones are skipped early.
        self._todo = sorted(self._least, key=self._least.__getitem__, reverse=True)
        self._always, self._most = always, most
        self._short: dict[Candidate, Estimate] = {}
        self.found: dict[Candidate, Estimate] = {}
        self._stage, self._quickest = 0, float("inf")
        self.messages = 0  # messages that the latest estimate replayed

    def advance(self) -> bool:
        """Estimates the next candidate; True when that was the last."""
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
        """Candidates by their short estimates, best first."""
        return [one.candidate for one in sorted(self._short.values(), key=lambda one: one.value)]

    @property
    def ranking(self) -> list[Estimate]:
        """Long estimates, best first; ties go to the one with fewer worker-seconds."""
        return sorted(self.found.values(), key=lambda one: (one.value, one.worker_seconds))


def neighbours(one: Pipeline, most: int) -> list[Candidate]:
    """Pipelines near `one`: somewhat more or fewer parts (at most `most`), or one copy more or less."""
    # Within the factor of two that separates the grid's points; +-1 for small numbers, which the factors round to themselves.
    steps = sorted({max(1, round(one.parts * f)) for f in (0.7, 0.85, 1.2, 1.4)} | {one.parts - 1, one.parts + 1})
    parts = [replace(one, parts=p) for p in steps if 1 <= p <= most]
    copies = [replace(one, copies=c) for c in (one.copies - 1, one.copies + 1) if c >= 1]
    return [*parts, *copies]


def select(trace: Trace, candidates: Sequence[Candidate], question: Question, most: int) -> list[Estimate]:
    """Runs a whole selection and returns its ranking."""
    selection = Selection(trace, candidates, question, (), most)
    while not selection.advance():
        pass
    return selection.ranking
