"""The grid of candidate schemes and pipelines that adaptive scheduling, sweeps and plans compare."""

from collections.abc import Iterator

from distseq.coding.schemes.registry import family_of, parse
from distseq.scheduling.pipeline import Pipeline

Candidate = str | Pipeline  # a scheme's specification, or a pipeline (no rounds)
# The three settings measured in docs/decisions/012: none of them comes near replication, so a finer grid would buy nothing.
PERCENTS = (50, 75, 90)
# Longest delay T to try. A retry after three rounds repeats work that is rarely still missing, and each T multiplies the
# number of M-SGC and re-dispatch candidates.
MOST_ROUNDS = 3
# Most rows in one streamed message: finer streaming gains next to nothing, and each row is one more vector of model size to
# send.
MOST_ROWS = 32
NOT_SPLIT = "not splitting"


def name_of(candidate: Candidate) -> str:
    """The label of a candidate in tables and records."""
    return candidate.name if isinstance(candidate, Pipeline) else candidate


def family(candidate: Candidate) -> str:
    """The family of a candidate: the name of its scheme, "streamed gc", "pipeline" or "not splitting"."""
    if isinstance(candidate, Pipeline):
        # A pipeline of one part is reported apart: it is the simplest way to train many models, and often the best (M >= n).
        return "pipeline" if candidate.parts > 1 else NOT_SPLIT
    name = family_of(candidate)
    return "streamed gc" if name == "gc" and ",q=" in candidate else name


def candidates(n: int, models: int, batch: int | None = None) -> list[Candidate]:
    """Every candidate for n workers and M = `models` learners; about 100 at n = 256, M = 4.

    All have a delay T <= M - 1 and cut a job into at most `batch` parts. Uncoded is the exception: it is always included,
    although with more workers than samples some workers get no sample.
    """
    # Parts beyond the number of samples would be empty: a worker would start up for nothing.
    specs = [spec for spec in _specs(n, models - 1) if batch is None or _parts(spec, n) <= batch]
    return ["uncoded", *specs, *_pipelines(n, models, n if batch is None else min(n, batch))]


def _specs(n: int, delay: int) -> Iterator[str]:
    """Specifications of schemes whose delay T is at most `delay` rounds."""
    # Sizes of replica sets. A geometric grid: seconds per job are flat around their minimum (docs/benchmarks.md, gc and
    # srsgc), so neighbouring sizes cannot be told apart in a short replay.
    sets = _powers(2, n)
    yield from (f"gc:{g - 1}" for g in dict.fromkeys([*sets, n]) if g > 1)
    yield from (f"gc:{g - 1},q={g}" for g in sets if 2 * g <= n and g <= MOST_ROWS)
    delays = range(1, min(delay, MOST_ROUNDS) + 1)
    # Under safe closing only B and s = lam/2 matter for W = B + 1 (s = ceil(B lam / (W - 1 + B))), so W is not varied.
    yield from (f"srsgc:{B},{B + 1},{2 * (g - 1)}" for B in delays[:2] for g in sets if g <= min(n // 2 + 1, 32))
    # Every second size only: M-SGC also varies its shape (B, W), and the grid should stay at about a hundred.
    lams = [g - 1 for g in sets[::2]]
    shapes = [(B, T + 2 - B) for T in delays for B in range(1, T + 1) if 2 * B < T + 2]
    yield from (f"msgc:{B},{W},{lam}" for B, W in shapes for lam in lams)
    # The shortest and the longest delay: more delay buys more retries, four copies help only at T = 1 (docs/decisions/012).
    again = dict.fromkeys([1, *delays[-1:]]) if delays else ()
    yield from (f"redispatch:{T},copies={copies}" for T in again for copies in _powers(1, min(n, 4)))
    # On few workers a percentage may round up to all of them: then nothing is left to copy.
    yield from (f"backup:{percent}" for percent in PERCENTS if -(-percent * n // 100) < n)


def _pipelines(n: int, models: int, most: int) -> Iterator[Pipeline]:
    """Pipelines of at most `most` parts, with no more copies than a lane has workers."""
    for lanes in dict.fromkeys([1, models]):
        width = n // lanes
        for parts in _powers(1, min(most, width)):
            yield from (Pipeline(parts, copies, lanes) for copies in _powers(1, min(width, 4)))


def _powers(first: int, most: int) -> list[int]:
    """The powers of two from `first` (itself one) up to `most`."""
    return [2**k for k in range(first.bit_length() - 1, max(0, most).bit_length())]


def _parts(spec: str, n: int) -> int:
    return sum(code.parts for code in parse(spec, n).codes)
