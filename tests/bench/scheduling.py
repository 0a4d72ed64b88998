"""make bench-scheduling: what every way of scheduling takes on recorded and generated delays, and what choosing among them does.

All in virtual time: the seconds are those of the trace, exact and the same twice, whatever this machine is busy with. Candidates
are ranked by replays, which have the simulator's very times; what is printed of the best is the simulator's own whole run.
"""

import argparse
import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from distseq.cluster.pool import Delivery
from distseq.cluster.profiles import PROFILES, profile
from distseq.cluster.simulated import SimulatedPool
from distseq.cluster.trace import Trace, load_trace
from distseq.coding.bounds import least_seconds, rounds_bounds
from distseq.coding.plan import MiniTask
from distseq.coding.schemes.registry import parse
from distseq.engine.journal import MemoryJournal
from distseq.engine.master import Master
from distseq.scheduling.adaptive.candidates import Candidate, candidates, family
from distseq.scheduling.adaptive.cost import Question
from distseq.scheduling.adaptive.scheduler import AdaptiveScheduler
from distseq.scheduling.closing import Mu, Safe
from distseq.scheduling.pipeline import Pipeline
from distseq.scheduling.pipeline_scheduler import PipelineScheduler
from distseq.scheduling.replay import replay
from distseq.simulation.simulate import NullLearner, Setting, simulate

ROUNDS = 100  # jobs of a whole run in rounds
LOOK = 3  # candidates of a family whose whole run is simulated


@dataclass(frozen=True)
class Run:
    """A whole run, from the first dispatch to the last decode."""

    name: str
    seconds: float  # per job
    worker_seconds: float  # busy, per job
    iterations: np.ndarray  # seconds of every learner's iterations
    changes: int = 0
    deciding: float = 0.0  # CPU milliseconds of the scheduler per delivery
    deliveries: int = 0


def name_of(candidate: Candidate) -> str:
    return candidate if isinstance(candidate, str) else candidate.name


def iterations(records: Iterable[dict]) -> np.ndarray:
    """Seconds from one decoded job of a learner to its next."""
    last: dict[str, float] = {}
    found = []
    for record in records:
        if record["kind"] == "job":
            found.append(record["decoded"] - last.get(record["learner"], 0.0))
            last[record["learner"]] = record["decoded"]
    return np.array(found)


def fixed(trace: Trace, candidate: Candidate, models: int, jobs: int, unfinished: str, *, mu: bool = False) -> Run:
    journal = MemoryJournal()
    setting = Setting(trace, models, jobs, Mu() if mu else Safe(), unfinished, arrival="message" if mu else "row")
    found = simulate(setting, candidate, journal=journal)
    name = name_of(candidate) + (", mu = 1" if mu else "")
    return Run(name, found["seconds_per_job"], found["worker_seconds_per_job"], iterations(journal.records))


class Timed:
    """A scheduler, and the CPU seconds that it takes."""

    def __init__(self, inner: AdaptiveScheduler) -> None:
        self.inner, self.seconds, self.deliveries = inner, 0.0, 0

    def _timed(self, call: Any, *args: Any) -> Any:
        begun = time.process_time()
        result = call(*args)
        self.seconds += time.process_time() - begun
        return result

    def opened(self, *args: Any) -> None:
        self._timed(self.inner.opened, *args)

    def members(self, *args: Any) -> None:
        self._timed(self.inner.members, *args)

    def withdrawn(self, *args: Any) -> None:
        self._timed(self.inner.withdrawn, *args)

    def delivered(self, arrivals: Sequence[Delivery], now: float) -> None:
        self.deliveries += len(arrivals)
        self._timed(self.inner.delivered, arrivals, now)

    def step(self, now: float) -> Any:
        return self._timed(self.inner.step, now)

    def missing(self) -> Any:
        return self.inner.missing()


def auto(trace: Trace, models: int, jobs: int, unfinished: str) -> Run:
    pool, journal = SimulatedPool(trace, unfinished=unfinished), MemoryJournal()
    scheduler = Timed(AdaptiveScheduler(trace.workers, Question(models, unfinished)))
    learners = [NullLearner(f"model-{m}", jobs // models + (m < jobs % models)) for m in range(models)]
    seconds = Master(learners, scheduler, pool, journal).run()
    chosen = [record["chosen"] for record in journal.records if record["kind"] == "choice"]
    name = f"auto ({', '.join(chosen) or 'as it began'})"
    return Run(
        name,
        seconds / jobs,
        pool.worker_seconds() / jobs,
        iterations(journal.records),
        len(chosen),
        1e3 * scheduler.seconds / scheduler.deliveries,
        scheduler.deliveries,
    )


def ranked(
    trace: Trace, models: int, jobs: int, unfinished: str, tried: Iterable[Candidate]
) -> list[tuple[float, Candidate]]:
    """By the seconds of a replay of so many jobs."""
    found = []
    for one in tried:
        scheme = one if isinstance(one, Pipeline) else parse(one, trace.workers)
        if isinstance(scheme, Pipeline) or scheme.delay < models:
            found.append(
                (float(replay(trace, scheme, models=models, jobs=jobs, unfinished=unfinished).decoded[-1]), one)
            )
    return sorted(found, key=lambda pair: pair[0])


def grid(trace: Trace, models: int) -> list[Candidate]:
    """The candidates, finer in the parts of pipelines, and the static sets: lanes with as many copies as fill them."""
    n = trace.workers
    fine = [
        Pipeline(parts, copies, lanes)
        for lanes in dict.fromkeys((1, models))
        for copies in (1, 2, 3, 4, 6)
        for parts in sorted({round(2 ** (k / 4)) for k in range(4 * int(np.log2(n)) + 1)})
        if parts * copies <= 4 * n // min(models, n) and lanes <= n
    ]
    return list(dict.fromkeys([*candidates(n, models), *fine]))


def static(n: int, models: int) -> list[Candidate]:
    """A set of n / M workers for each model, divided into replica sets: no worker ever helps another model."""
    width = n // models
    return (
        [Pipeline(width // copies, copies, models) for copies in range(1, width + 1) if width // copies]
        if width
        else []
    )


def best(trace: Trace, models: int, jobs: int, unfinished: str, tried: list[Candidate]) -> Run:
    """The quickest whole run of those that are quickest in replays."""
    order = [one for _, one in ranked(trace, models, jobs, unfinished, tried)[:LOOK]]
    return min((fixed(trace, one, models, jobs, unfinished) for one in order), key=lambda run: run.seconds)


def by_family(trace: Trace, models: int, jobs: int, unfinished: str) -> Iterator[Run]:
    groups: dict[str, list[Candidate]] = {}
    for one in grid(trace, models):
        groups.setdefault(family(one), []).append(one)
    for kind, members in groups.items():
        if found := ranked(trace, models, min(jobs, 100), unfinished, members)[:1]:
            most = jobs if isinstance(found[0][1], Pipeline) else min(jobs, ROUNDS)
            run = fixed(trace, found[0][1], models, most, unfinished)
            yield replace(run, name=f"{kind}: {run.name}" if kind != run.name else kind)


def line(run: Run, least: float) -> str:
    spread = np.quantile(run.iterations, 0.99) / np.median(run.iterations)
    return f"| {run.name} | {run.seconds:.4f} | {run.seconds / least:.2f} | {run.worker_seconds:.1f} | {spread:.2f} |"


HEAD = "| scheduling | s/job | of the best | worker-s/job | 99th percentile of an iteration / median |\n|---|---|---|---|---|"


def on_canada(trace: Trace, sizes: dict[int, int], unfinished: str) -> None:
    for models, jobs in sizes.items():
        runs = list(by_family(trace, models, jobs, unfinished))
        if models > 1:
            runs.append(fixed(trace, "msgc:1,2,27,code=cyclic", models, min(jobs, ROUNDS), unfinished, mu=True))
        if width := static(trace.workers, models):
            runs.append(replace(run := best(trace, models, jobs, unfinished, width), name=f"static sets: {run.name}"))
        cheap = [one for one in grid(trace, models) if isinstance(one, Pipeline) and one.parts * one.copies <= 24]
        runs.append(best(trace, models, jobs, unfinished, cheap))
        runs.append(auto(trace, models, jobs, unfinished))
        least = min(run.seconds for run in runs)
        print(f"\nM = {models}, {jobs} jobs, {trace.workers} workers, unfinished = {unfinished}\n\n{HEAD}")
        for run in sorted(runs, key=lambda run: run.seconds):
            print(line(run, least), flush=True)
        startups = trace.startups()
        bounds = {name: s / jobs for name, s in rounds_bounds(startups, trace.slope, jobs, trace.master).items()}
        bounds["genieAny"] = least_seconds(startups, trace.slope, models, jobs, trace.master) / jobs
        print("\nbounds, s/job: " + ", ".join(f"{name} {seconds:.4f}" for name, seconds in bounds.items()))


def scaled(trace: Trace, unfinished: str) -> None:
    print(f"\nCompute scaled, M = 4, 400 jobs, unfinished = {unfinished}\n")
    print("| slope/n, s | M-SGC, mu rule, best lam | M-SGC, safe, best | auto | less time than M-SGC by the mu rule |")
    print("|---|---|---|---|---|")
    lams = (1, 3, 9, 27, 64, 128, 256)
    for each in (0.43, 1.7):
        with_slope = trace.with_slope(each * trace.workers)
        by_mu = min(
            (fixed(with_slope, f"msgc:1,2,{lam}", 4, 80, unfinished, mu=True) for lam in lams), key=lambda r: r.seconds
        )
        safe = best(with_slope, 4, 80, unfinished, [f"msgc:1,2,{lam}" for lam in lams])
        chosen = auto(with_slope, 4, 400, unfinished)
        print(
            f"| {each} | {by_mu.seconds:.3f} ({by_mu.name}) | {safe.seconds:.3f} | {chosen.seconds:.3f} | "
            f"{100 * (1 - chosen.seconds / by_mu.seconds):.0f} % |",
            flush=True,
        )


class Changing(SimulatedPool):
    """Delays of one trace until a time of the pool, and of another from then on."""

    def __init__(self, before: Trace, after: Trace, at: float, unfinished: str) -> None:
        super().__init__(before, unfinished=unfinished)
        self._after, self._at = after, at

    def send(self, tasks: Sequence[MiniTask]) -> None:
        if self._now >= self._at:
            self._trace = self._after
        super().send(tasks)


def changing(n: int) -> dict[str, tuple[Trace, Trace]]:
    """Regimes that change half-way."""
    calm, slow, tail = profile("bursts", n, 1), profile("half-slow", n, 2), profile("heavy-tail", n, 3)
    return {
        "bursts, then half of the workers slow": (calm, slow),
        "a quarter of the start-ups, then bursts": (replace(calm, times=calm.times / 4), calm),
        "heavy tail, then bursts with eight times the compute": (tail, calm.with_slope(8 * calm.slope)),
    }


def half_way(before: Trace, after: Trace, scheduler: Any, models: int, jobs: int, at: float) -> float:
    """Seconds per job of a whole run on serial workers."""
    pool = Changing(before, after, at, "serial")
    learners = [NullLearner(f"model-{m}", jobs // models) for m in range(models)]
    return Master(learners, scheduler, pool).run() / jobs


def changed(models: int, jobs: int) -> None:
    """The change comes when the best pipeline of the first regime has done half of the jobs."""
    print(f"\nRegimes that change half-way, M = {models}, {jobs} jobs, 256 workers, unfinished = serial\n")
    print("| delays | best fixed choice in hindsight, s/job | auto, s/job | of the best |\n|---|---|---|---|")
    fixed_ones = [Pipeline(p, c) for p in (4, 8, 10, 13, 16, 20, 24, 32, 48, 64) for c in (1, 2, 3)]
    for name, (before, after) in changing(256).items():
        ways = {one: ranked(trace, models, 200, "serial", fixed_ones) for one, trace in enumerate((before, after))}
        at = ways[0][0][0] / 200 * jobs / 2
        tried = dict.fromkeys(one for way in ways.values() for _, one in way[:4])
        runs = {one: half_way(before, after, PipelineScheduler(one, 256), models, jobs, at) for one in tried}
        known = min(runs, key=runs.__getitem__)
        own = half_way(before, after, AdaptiveScheduler(256, Question(models)), models, jobs, at)
        print(f"| {name} | {runs[known]:.4f} ({known.name}) | {own:.4f} | {own / runs[known]:.3f} |", flush=True)


def hindsight(traces: dict[str, Trace], unfinished: str, models: int, jobs: int) -> None:
    print(f"\nWhole run from a cold start, M = {models}, {jobs} jobs, unfinished = {unfinished}\n")
    print("| delays | best fixed choice in hindsight, s/job | auto, s/job | of the best | changes | p99/median |")
    print("|---|---|---|---|---|---|")
    for name, trace in traces.items():
        known = best(trace, models, jobs, unfinished, grid(trace, models))
        run = auto(trace, models, jobs, unfinished)
        spread = np.quantile(run.iterations, 0.99) / np.median(run.iterations)
        print(
            f"| {name} | {known.seconds:.4f} ({known.name}) | {run.seconds:.4f} | {run.seconds / known.seconds:.3f} | "
            f"{run.changes} | {spread:.2f} |",
            flush=True,
        )


def never_worse(traces: dict[str, Trace], unfinished: str, sizes: Iterable[tuple[int, int, int]]) -> None:
    print(f"\nauto beside the better of uncoded and not splitting, unfinished = {unfinished}\n")
    print("| delays | workers | M | uncoded | not splitting | auto | of the better |\n|---|---|---|---|---|---|---|")
    for name, trace in traces.items():
        for n, models, jobs in sizes:
            if n > trace.workers:
                continue
            own = trace.first(n)
            plain, whole = (
                fixed(own, "uncoded", models, jobs, unfinished),
                fixed(own, Pipeline(), models, jobs, unfinished),
            )
            run = auto(own, models, jobs, unfinished)
            ratio = run.seconds / min(plain.seconds, whole.seconds)
            print(
                f"| {name} | {n} | {models} | {plain.seconds:.4f} | {whole.seconds:.4f} | {run.seconds:.4f} | {ratio:.3f} |",
                flush=True,
            )


def cost(unfinished: str) -> None:
    print(
        "\nCPU milliseconds of the scheduler per delivery: deciding, and selecting from a cold start (auto, bursts, serial)\n"
    )
    print("| workers | M | jobs | deliveries | ms per delivery |\n|---|---|---|---|---|")
    for n, models, jobs in ((64, 16, 1600), (256, 16, 3200), (1024, 64, 6400), (4096, 256, 12800)):
        run = auto(profile("bursts", n, 0), models, jobs, unfinished)
        print(f"| {n} | {models} | {jobs} | {run.deliveries} | {run.deciding:.3f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--traces", type=Path, help="folder of recorded traces: canada_l000.npz and others")
    parser.add_argument("--unfinished", default="lost")
    parser.add_argument("--only", nargs="*", default=["canada", "scaled", "hindsight", "never", "cost"])
    options = parser.parse_args()
    print(f"{platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}")
    recorded = {p.stem: load_trace(p) for p in sorted(options.traces.glob("*.npz"))} if options.traces else {}
    recorded = {name: replace(t, times=t.times.astype(float)) for name, t in recorded.items()}
    generated = {name: profile(name, 256, 0) for name in PROFILES}
    replay(generated["bursts"].first(4), parse("uncoded", 4), models=1, jobs=1)  # compile
    replay(generated["bursts"].first(4), Pipeline(), models=1, jobs=1)
    u = options.unfinished
    if "canada" in options.only and recorded:
        on_canada(recorded["canada_l000"], {4: 400, 16: 1600, 64: 6400, 256: 5120}, u)
    if "scaled" in options.only and recorded:
        scaled(recorded["canada_l000"], u)
    if "hindsight" in options.only:
        named = {k: recorded[k] for k in ("canada_l000", "canada_500", "canada_b2048_l000") if k in recorded}
        tails = {name: generated[name] for name in ("heavy-tail", "spikes")}
        hindsight(named | tails, u, 4, 800)
        changed(4, 800)
        hindsight(named, u, 16, 1600)
    if "never" in options.only:
        never_worse(recorded | generated, u, ((256, 4, 200), (16, 4, 200), (8, 1, 400), (4, 16, 200)))
    if "cost" in options.only:
        cost("serial")


if __name__ == "__main__":
    main()
