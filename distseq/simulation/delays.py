"""Loads the delays that options name: a trace file, a generated profile or a recorded run."""

from pathlib import Path

from distseq.cluster.profiles import delays
from distseq.cluster.trace import Trace, load_trace
from distseq.config.schema import WORKERS
from distseq.simulation.measure import run_trace

PROFILE_WORKERS = 256  # default for generated profiles: as many as the recorded traces of docs/benchmarks.md have


def given_delays(
    trace: Trace | Path | str | None,
    profile: str | None,
    workers: int | None,
    seed: int,
    slope: float | None,
    run: Path | str | None = None,
) -> Trace:
    """The trace from exactly one of the sources trace, profile and run; ValueError for none or several.

    workers: use the first N columns; by default all, 256 for a profile. seed: of a profile. slope: replaces the trace's
    seconds of compute per batch.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"there must be at least one worker: got {workers}")
    if workers is not None and workers > WORKERS:
        raise ValueError(f"there can be at most {WORKERS} workers: got {workers}")
    if seed < 0:
        raise ValueError(f"the seed must be at least 0: got {seed}")
    sources = [one for one in (trace, profile, run) if one is not None]
    if len(sources) != 1:
        raise ValueError(
            f"give delays by exactly one of --trace FILE, --profile NAME and --run RUN: got {len(sources)}"
        )
    if profile is not None:
        table = delays(profile, workers or PROFILE_WORKERS, seed)
    else:
        if isinstance(trace, Trace):
            table = trace
        elif trace is not None:
            table = load_trace(Path(trace))
        else:
            assert run is not None, "one of the three is given"
            table = run_trace(Path(run))
        # Always the first ones, so that a number of workers means the same delays in every command.
        table = table.first(workers or table.workers)
    return table if slope is None else table.with_slope(slope)
