"""Schemes and pipelines on the same delays, and the bounds beside them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from distseq.cluster.trace import Trace
from distseq.coding.genie import least_seconds, rounds_bounds
from distseq.scheduling.candidates import Candidate, family
from distseq.scheduling.closing import Closing
from distseq.scheduling.estimate import FREE, Prices, Question
from distseq.scheduling.pipeline import Pipeline
from distseq.simulation import simulate, simulate_auto, simulate_pipeline
from distseq.timeline import Timeline

AUTO = "auto"
Result = dict[str, Any]  # what `distseq simulate --json` prints of a candidate or a bound
ROUND_ASSUMES = "rounds, each with one job and one message to each worker, that know all start-ups"
ALL_ASSUME = "workers that do one thing at a time"


@dataclass(frozen=True, eq=False)
class Setting:
    """What candidates are compared in: the arguments of `simulate` beside the scheme."""

    trace: Trace
    closing: Closing
    models: int
    jobs: int
    unfinished: str
    arrival: str
    inexact: bool = False
    objective: str = "seconds"  # of AUTO, as are the next two
    prices: Prices = FREE
    places: int = 0

    def run(self, candidate: Candidate, timeline: Timeline | None = None) -> Result:
        """ValueError for a candidate or a setting that cannot be."""
        of_all: dict[str, Any] = {"jobs": self.jobs, "timeline": timeline}
        if candidate == AUTO:
            asked = Question(self.models, self.unfinished, objective=self.objective, prices=self.prices)
            found = simulate_auto(self.trace, question=asked, places=self.places, **of_all)
            return {"family": AUTO, **found}
        of_all |= {"models": self.models, "unfinished": self.unfinished}
        if isinstance(candidate, Pipeline):
            result = simulate_pipeline(self.trace, candidate, **of_all)
        else:
            result = simulate(self.trace, candidate, self.closing, arrival=self.arrival, inexact=self.inexact, **of_all)
        return {"family": family(candidate), **result}

    def bounds(self) -> list[Result]:
        """Least seconds, each with what it assumes under "bound". ValueError where an invocation of the trace is lost.

        Where unfinished work overlaps with new, a worker does two things at once, and there is no bound without rounds.
        """
        startups, slope, master = self.trace.startups(), self.trace.slope, self.trace.master
        lost = int(np.count_nonzero(np.isinf(startups)))
        if lost:
            raise ValueError(f"bounds need a trace without lost invocations: it has {lost}")
        least = {name: (s, ROUND_ASSUMES) for name, s in rounds_bounds(startups, slope, self.jobs, master).items()}
        if self.unfinished != "overlap":
            least["genieAny"] = least_seconds(startups, slope, self.models, self.jobs, master), ALL_ASSUME
        return [
            {"scheme": name, "bound": assumes, "total_seconds": seconds, "seconds_per_job": seconds / self.jobs}
            for name, (seconds, assumes) in least.items()
        ]


def best_of_families(results: Iterable[Result]) -> list[Result]:
    """The first of each family, in the same order, and what belongs to none."""
    seen, best = {None}, []
    for result in results:
        if result.get("family") is None or result["family"] not in seen:
            best.append(result)
            seen.add(result.get("family"))
    return best
