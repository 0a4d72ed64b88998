"""make regimes: which way of scheduling is best where, and by how much; docs/regimes.md is its output, read.

All in virtual time, from replays that have the simulator's very times: exact, and the same twice. Storage is
counted in shares, 1/n of all learners' data each, that the fullest worker must hold: uncoded training needs one.
"""

import argparse
import platform
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np

from distseq.cluster.profiles import profile
from distseq.cluster.simulated import UNFINISHED
from distseq.cluster.trace import Trace, load_trace
from distseq.coding.schemes.registry import parse
from distseq.scheduling.adaptive.candidates import Candidate, family, name_of
from distseq.scheduling.closing import Mu, Safe
from distseq.scheduling.pipeline import Pipeline
from distseq.scheduling.replay import Replayed, replay
from distseq.simulation.simulate import Setting, simulate

N = 64
MODELS = (1, 4, 16, 64, 256)
COMPUTE = (0.01, 0.1, 0.5, 2, 10)  # slope / n over the usual start-up
DELAYS = ("bursts", "heavy-tail", "one-slow")
MESSAGES = 96  # of every worker, at least, in a replay
FULL = 1.001  # all workers always busy, and the rounding of that
STEPS = 4  # of every learner, at least, where there are no rounds
ANYWHERE = float(N)
STORAGE = (1.5, 2, 4, ANYWHERE)
WAYS = ("any", "rounds", "whole")  # of dispatching; rounds whose rows come one by one; whose messages come whole
SAYS = {
    "any": "any scheduler",
    "rounds": "rounds",
    "whole": "rounds, one answer per worker",
}
CODED = ("m-sgc", "sr-sgc")
NAMES = {"gc": "replication", "streamed gc": "streamed", "srsgc": "sr-sgc", "msgc": "m-sgc", "pipeline": "pipelining"}


class Found(NamedTuple):
    """Of one candidate at one place of the map."""

    candidate: Candidate
    kind: str  # family
    seconds: float  # per job, all learners having as many
    vectors: float  # of a model's size through the master's link, per job
    storage: float
    busy: float  # messages being computed at a time, over N


class Cell(NamedTuple):
    delays: str
    models: int
    compute: float

    def __str__(self) -> str:
        return f"{self.delays}, M/n = {self.models}/{N}, compute {self.compute}"


Map = dict[Cell, list[Found]]
Maps = dict[tuple[str, bool], Map]  # by what an unfinished worker does, and whether messages come whole


def storage(candidate: Candidate, models: int) -> float:
    """Of the fullest worker of N, times N, as the mean over all learners' data.

    What any worker may do needs everything. Lanes of one learner each (of M/n learners each where M > n) hold what is theirs.
    """
    if isinstance(candidate, Pipeline):
        if candidate.places:
            held = Counter(i % N for site in candidate.sites(N) for i in site)
            return max(held.values()) * N / candidate.parts
        return N / candidate.lanes if candidate.lanes == min(models, N) else ANYWHERE
    return ANYWHERE if family(candidate) in ("redispatch", "backup") else float(parse(candidate, N).load * N)


def kind_of(candidate: Candidate) -> str:
    """Under fractional repetition, gradient coding is replication; "gc" proper is the cyclic code."""
    return "gc" if name_of(candidate).endswith("cyclic") else NAMES.get(family(candidate), family(candidate))


def busy_of(found: Replayed) -> float:
    return found.worker_seconds / (N * float(found.decoded[-1]))


def steps(trace: Trace, pipeline: Pipeline, models: int, each: int, unfinished: str) -> tuple[float, float, float]:
    """Seconds and vectors per job until every learner has made so many steps, those that are done going on; how busy."""
    jobs = models * each
    while True:
        found = replay(trace, pipeline, models=models, jobs=jobs, unfinished=unfinished)
        made = np.bincount(found.learners, minlength=models)
        if made.min() >= each:
            break
        jobs *= 2
    last = max(float(found.decoded[found.learners == m][each - 1]) for m in range(models))
    # A message of several parts brings the parameters of each.
    vectors = (found.messages * pipeline.burst + found.rows) / jobs
    return last / (models * each), vectors, busy_of(found)


def schemes() -> list[str]:
    sets = (2, 4, 8, 16, 32, 64)
    found = ["uncoded"] + [f"gc:{g - 1}{code}" for g in sets for code in ("", ",code=cyclic")]
    found += [f"gc:{g - 1},q={g}" for g in sets[:4]]
    found += [f"srsgc:{B},{B + 1},{2 * s}" for B in (1, 2) for s in (1, 2, 3, 7, 15)]
    shapes = [(1, 2), (1, 3), (1, 4), (2, 3), (1, 8), (2, 4), (3, 4)]
    found += [f"msgc:{B},{W},{lam}" for B, W in shapes for lam in (1, 3, 7, 15, 64)]
    found += [f"redispatch:{T},copies={c}" for T in (1, 3) for c in (1, 2, 4)]
    return found + [f"backup:{percent}" for percent in (50, 75, 90)]


def pipelines(models: int) -> list[Pipeline]:
    powers = [2**k for k in range(7)]
    found = [Pipeline(parts, copies) for parts in powers for copies in (1, 2, 4)]
    found += [Pipeline(parts, burst=4) for parts in powers[3:]]
    lanes = min(models, N)
    if lanes > 1:
        width = N // lanes
        found += [Pipeline(p, c, lanes) for p in powers for c in (1, 2, 4) if p <= 2 * width and c <= width]
    for rho in (1, 2, 4):
        found += [Pipeline(N, copies, 1, burst, rho) for copies in sorted({1, rho}) for burst in (1, 4)]
        found += [Pipeline(N // rho, copies, places=rho) for copies in (1, rho) if rho > 1]
    return found


def tried(
    trace: Trace, unfinished: str, whole: bool, sizes: Iterable[int] = MODELS
) -> Iterator[tuple[int, list[Found]]]:
    """What every candidate takes, for each number of models. Rounds do not depend on it, once it allows their delay."""
    rounds = []
    for spec in schemes():
        scheme = parse(spec, N)
        found = replay(trace, scheme, models=scheme.delay + 1, jobs=MESSAGES, unfinished=unfinished, whole=whole)
        vectors = (found.messages + found.rows) / MESSAGES
        one = Found(spec, kind_of(spec), found.seconds_per_job, vectors, storage(spec, 1), busy_of(found))
        rounds.append((scheme.delay, one))
    for models in sizes:
        here = [one for delay, one in rounds if delay < models]
        for one in () if whole else pipelines(models):
            each = max(STEPS, MESSAGES * N // one.parts // models)
            seconds, vectors, busy = steps(trace, one, models, each, unfinished)
            here.append(Found(one, kind_of(one), seconds, vectors, storage(one, models), busy))
        yield models, here


def at_compute(trace: Trace, compute: float) -> Trace:
    """The same start-ups, with slope / n so many times the usual one."""
    return trace.with_slope(compute * float(np.median(trace.startups())) * N)


def mapped(traces: dict[str, Trace], unfinished: str, whole: bool) -> Map:
    found = {}
    for (name, trace), compute in product(traces.items(), COMPUTE):
        for models, here in tried(at_compute(trace, compute), unfinished, whole):
            found[Cell(name, models, compute)] = here
    return found


class Rule(NamedTuple):
    """What a scheduler may do."""

    unfinished: str
    way: str
    storage: float
    busy: float = np.inf  # at most

    def __str__(self) -> str:
        held = "anything" if self.storage == ANYWHERE else f"{self.storage} share{'s' * (self.storage != 1)}"
        unfinished = self.unfinished + (", at most n busy" if self.busy < np.inf else "")
        return f"{unfinished} | {SAYS[self.way]} | {held}"

    def allowed(self, maps: Maps, cell: Cell) -> dict[str, Found]:
        """The best of each family, best first."""
        best: dict[str, Found] = {}
        for one in sorted(maps[self.unfinished, self.way == "whole"][cell], key=lambda one: one.seconds):
            if self.allows(one):
                best.setdefault(one.kind, one)
        return best

    def allows(self, one: Found) -> bool:
        streams = one.kind == "streamed" and self.way == "whole"
        fits = one.storage <= self.storage and one.busy <= self.busy
        return fits and not streams and (self.way == "any" or isinstance(one.candidate, str))


def margin(best: dict[str, Found], kind: str) -> float:
    """Seconds of the best other family over those of this one: above 1 where this one wins, inf where there is no other."""
    others = [one.seconds for name, one in best.items() if name != kind]
    return min(others, default=np.inf) / best[kind].seconds


def census(maps: Maps, unfinished: tuple[str, ...]) -> None:
    """Under every rule: which family wins how often, and how near the coded ones come."""
    cells = list(maps[unfinished[0], False])
    print(f"\nOf {len(cells)} cells of the map, won by\n")
    print("| unfinished | may | a worker stores | winners | m-sgc | sr-sgc |\n|---|---|---|---|---|---|")
    rules = [Rule(*key) for key in product(unfinished, WAYS, STORAGE)]
    # Workers that overlap compute several messages at once, at full speed each: as many functions as are asked for.
    rules += [rule._replace(busy=FULL) for rule in rules if rule.unfinished == "overlap"]
    for rule in rules:
        at = {cell: rule.allowed(maps, cell) for cell in cells}
        won = Counter(next(iter(best), "nobody") for best in at.values())
        coded = []
        for kind in CODED:
            margins = {cell: margin(best, kind) for cell, best in at.items() if kind in best}
            if not margins:
                coded.append("stores more")
                continue
            top = max(margins, key=margins.__getitem__)
            wins = sum(value > 1 for value in margins.values())
            by = f"wins {wins}, at most" if wins else "never; at best"
            busy = f", {at[top][kind].busy:.1f} n busy" if rule.unfinished == "overlap" else ""
            coded.append(f"{by} {margins[top]:.2f} ({at[top][kind].candidate}: {top}{busy})")
        print(f"| {rule} | {', '.join(f'{k} {c}' for k, c in won.most_common())} | {' | '.join(coded)} |")


def atlas(maps: Maps, rule: Rule) -> None:
    """The winner at every place, and the runner-up's seconds over its own."""
    print(f"\nWinner, and how many times its seconds the next family takes: {rule}\n")
    print(f"| delays | M/n | {' | '.join(f'compute {c}' for c in COMPUTE)} |\n|---|---|{'---|' * len(COMPUTE)}")
    here = maps[rule.unfinished, rule.way == "whole"]
    most = max(MODELS) if rule.way == "any" else 16  # rounds of more models are the same
    for delays, models in dict.fromkeys((cell.delays, cell.models) for cell in here if cell.models <= most):
        words = []
        for compute in COMPUTE:
            best = rule.allowed(maps, Cell(delays, models, compute))
            kind = next(iter(best))
            ratio = margin(best, kind)
            words.append(f"{kind} {ratio:.2f}" if ratio < np.inf else f"{kind} alone")
        print(f"| {delays} | {models}/{N} | {' | '.join(words)} |")


def families(maps: Maps, rule: Rule, delays: str) -> None:
    """Seconds per job of the best, and those of every family over it."""
    cells = [Cell(delays, models, compute) for models in MODELS for compute in (0.1, 2, 10)]
    at = {cell: rule.allowed(maps, cell) for cell in cells}
    kinds = [kind for kind, _ in Counter(kind for best in at.values() for kind in best).most_common()]
    print(f"\nSeconds of every family over those of the best; {delays}: {rule}\n")
    print(f"| M/n | compute | best | s/job | {' | '.join(kinds)} |\n|---|---|---|---|{'---|' * len(kinds)}")
    for cell, best in at.items():
        first = next(iter(best.values()))
        ratios = [f"{best[kind].seconds / first.seconds:.2f}" if kind in best else "-" for kind in kinds]
        name = name_of(first.candidate)
        print(f"| {cell.models}/{N} | {cell.compute} | {name} | {first.seconds:.4f} | {' | '.join(ratios)} |")


def thresholds(found: list[Found]) -> list[tuple[float, Found]]:
    """(vectors per second from which on a candidate is best, it), the most first.

    Seconds of a job are what is replayed, or what its vectors take at the link where that is more.
    """
    front: list[Found] = []
    for one in sorted(found, key=lambda one: (one.seconds, one.vectors)):
        if not front or one.vectors < front[-1].vectors:
            front.append(one)
    # Between neighbours the quicker one loses where its vectors take as long as the other's whole job.
    slower = [*(b.seconds for b in front[1:]), np.inf]
    return [(one.vectors / seconds, one) for one, seconds in zip(front, slower, strict=True)]


def bandwidth(maps: Maps, unfinished: str) -> None:
    print("\nWinners by the bandwidth of the master's link, in models' sizes per second; bursts\n")
    print(
        "| unfinished | may | a worker stores | M/n | compute | from so many models/s on |\n|---|---|---|---|---|---|"
    )
    rules = (Rule(unfinished, "any", ANYWHERE), Rule(unfinished, "any", 2), Rule(unfinished, "whole", 2))
    for rule, models, compute in product(rules, (4, 16), (0.1, 2, 10)):
        here = maps[unfinished, rule.way == "whole"][Cell("bursts", models, compute)]
        kinds = {one.kind: (least, one) for least, one in thresholds([one for one in here if rule.allows(one)])}
        words = [f"{kind} {least:.3g} ({one.vectors:.0f} per job)" for kind, (least, one) in kinds.items()]
        print(f"| {rule} | {models}/{N} | {compute} | {', '.join(words)} |")


def draws(seeds: int) -> None:
    """Where a coded scheme wins although no round is asked for: whether it does on other draws of the delays."""
    print(f"\nSeconds of the best other family over those of a coded one: heavy-tail, seeds 0 to {seeds - 1}\n")
    print(f"| unfinished | may | a worker stores | family | M/n | compute | {' | '.join(map(str, range(seeds)))} |")
    print(f"|---|---|---|---|---|---|{'---|' * seeds}")
    for rule, kind, models, compute in (
        (Rule("lost", "any", 1.5), "m-sgc", 4, 0.01),
        (Rule("lost", "any", 2), "m-sgc", 16, 2),
        (Rule("lost", "any", 2), "m-sgc", 16, 10),
        (Rule("overlap", "any", 1.5, FULL), "m-sgc", 4, 0.01),
        (Rule("overlap", "any", 2, FULL), "m-sgc", 4, 2),
        (Rule("serial", "any", 2), "sr-sgc", 16, 0.1),
    ):
        words = []
        for seed in range(seeds):
            trace, cell = at_compute(profile("heavy-tail", N, seed), compute), Cell("heavy-tail", models, compute)
            maps = {(rule.unfinished, False): {cell: next(tried(trace, rule.unfinished, False, (models,)))[1]}}
            words.append(f"{margin(rule.allowed(maps, cell), kind):.2f}")
        print(f"| {rule} | {kind} | {models}/{N} | {compute} | {' | '.join(words)} |")


def papers(traces: dict[str, Trace], unfinished: str) -> None:
    """The papers' closing rule, code and messages, beside ours; 4 models."""
    grid = {
        "uncoded": ["uncoded"],
        "gc": [f"gc:{s},code=cyclic" for s in (1, 3, 7, 15)],
        "sr-sgc": [f"srsgc:1,2,{lam},code=cyclic" for lam in (2, 6, 14)],
        "m-sgc": [f"msgc:{B},{W},{lam},code=cyclic" for B, W in ((1, 2), (1, 4)) for lam in (1, 3, 7, 15, 64)],
    }
    print(f"\nSeconds per job of the best of each family, M = 4, 80 jobs, unfinished = {unfinished}\n")
    print(f"| delays | compute | closing, code, messages | {' | '.join(grid)} |\n|---|---|---|{'---|' * len(grid)}")
    for (name, trace), compute in product(traces.items(), (0.1, 2, 10)):
        slope = at_compute(trace, compute)
        for closing, code in ((Mu(), "cyclic"), (Safe(), "cyclic"), (Safe(), "fr")):
            words = []
            for specs in grid.values():
                own = [spec.replace("code=cyclic", f"code={code}") for spec in specs]
                setting = Setting(slope, 4, 80, closing, unfinished, arrival="message")
                seconds, spec = min((simulate(setting, s)["seconds_per_job"], s) for s in own)
                words.append(f"{seconds:.3f} ({spec.partition(',code')[0]})")
            rule = "mu = 1" if isinstance(closing, Mu) else "safe"
            print(f"| {name} | {compute} | {rule}, {code}, whole | {' | '.join(words)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--traces", type=Path, help="folder with the recorded canada_l000.npz, for one more map")
    options = parser.parse_args()
    print(f"Python {platform.python_version()}, numpy {np.__version__}, numba {numba.__version__}; {N} workers")
    generated = {name: profile(name, N, 0) for name in DELAYS}
    maps = {(u, whole): mapped(generated, u, whole) for u in UNFINISHED for whole in (False, True)}
    census(maps, UNFINISHED)
    for rule in (
        Rule("lost", "any", ANYWHERE),
        Rule("lost", "any", 1),
        Rule("lost", "any", 2),
        Rule("lost", "whole", 1.5),
        Rule("lost", "whole", 2),
        Rule("serial", "any", 2),
        Rule("serial", "whole", 2),
    ):
        atlas(maps, rule)
    for rule in (Rule("lost", "any", ANYWHERE), Rule("lost", "whole", 2)):
        families(maps, rule, "bursts")
    bandwidth(maps, "lost")
    draws(5)
    papers(generated, "lost")
    if options.traces:
        recorded = {"canada_l000": load_trace(options.traces / "canada_l000.npz").first(N)}
        print("\nThe recorded trace")
        maps = {("lost", whole): mapped(recorded, "lost", whole) for whole in (False, True)}
        census(maps, ("lost",))
        atlas(maps, Rule("lost", "any", ANYWHERE))
        atlas(maps, Rule("lost", "whole", 2))


if __name__ == "__main__":
    main()
