"""Which schemes and pipelines are worth trying on n workers: a coarse, geometric grid over every family."""

from collections.abc import Iterator

from distseq.coding.schemes.registry import family_of, parse
from distseq.scheduling.pipeline import Pipeline

Candidate = str | Pipeline  # a scheme's specification, or no rounds
PERCENTS = (50, 75, 90)  # of backup tasks
MOST_ROUNDS = 3  # of delay: later ones only repeat what is rarely missing
MOST_ROWS = 32  # that a streamed message sends: more gain next to nothing
NOT_SPLIT = "not splitting"


def name_of(candidate: Candidate) -> str:
    """What figures of it are headed with."""
    return candidate.name if isinstance(candidate, Pipeline) else candidate


def family(candidate: Candidate) -> str:
    """What a candidate is one of: the name of its scheme, "streamed gc", "pipeline", or "not splitting"."""
    if isinstance(candidate, Pipeline):
        return "pipeline" if candidate.parts > 1 else NOT_SPLIT
    name = family_of(candidate)
    return "streamed gc" if name == "gc" and ",q=" in candidate else name


def candidates(n: int, models: int, batch: int | None = None) -> list[Candidate]:
    """About 100 candidates at n = 256, M = 4, and few on few workers. Of delay T <= M - 1, and with at most `batch` parts.

    Uncoded is always among them, though on more workers than samples it leaves some without any.
    """
    specs = [spec for spec in _specs(n, models - 1) if batch is None or _parts(spec, n) <= batch]
    return ["uncoded", *specs, *_pipelines(n, models, n if batch is None else min(n, batch))]


def _specs(n: int, delay: int) -> Iterator[str]:
    """`delay`: the most rounds that a job may take beyond its own."""
    sets = _powers(2, n)  # sizes of replica sets
    yield from (f"gc:{g - 1}" for g in dict.fromkeys([*sets, n]) if g > 1)
    yield from (f"gc:{g - 1},q={g}" for g in sets if 2 * g <= n and g <= MOST_ROWS)
    delays = range(1, min(delay, MOST_ROUNDS) + 1)
    # Under safe closing only B and s = lam/2 matter here.
    yield from (f"srsgc:{B},{B + 1},{2 * (g - 1)}" for B in delays[:2] for g in sets if g <= min(n // 2 + 1, 32))
    lams = [g - 1 for g in sets[::2]]
    shapes = [(B, T + 2 - B) for T in delays for B in range(1, T + 1) if 2 * B < T + 2]
    yield from (f"msgc:{B},{W},{lam}" for B, W in shapes for lam in lams)
    again = dict.fromkeys([1, *delays[-1:]]) if delays else ()
    yield from (f"redispatch:{T},copies={copies}" for T in again for copies in _powers(1, min(n, 4)))
    yield from (f"backup:{percent}" for percent in PERCENTS if -(-percent * n // 100) < n)


def _pipelines(n: int, models: int, most: int) -> Iterator[Pipeline]:
    """Of at most so many parts, and no more copies than there are workers in a lane."""
    for lanes in dict.fromkeys([1, models]):
        width = n // lanes
        for parts in _powers(1, min(most, width)):
            yield from (Pipeline(parts, copies, lanes) for copies in _powers(1, min(width, 4)))


def _powers(first: int, most: int) -> list[int]:
    """Powers of two from `first` to at most `most`."""
    return [2**k for k in range(first.bit_length() - 1, max(0, most).bit_length())]


def _parts(spec: str, n: int) -> int:
    return sum(code.parts for code in parse(spec, n).codes)
