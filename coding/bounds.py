"""Lower bounds on seconds, of schedulers that know every start-up in advance."""

import numpy as np


def genie_set(startups: np.ndarray, slope: float) -> np.ndarray:
    """(rounds,) least seconds of a round in which the fastest m workers do 1/m of one job each, for the best m.

    `startups`: (rounds, n) seconds; `slope`: seconds of compute per batch. At most what (n, s) gradient coding takes for any
    s, when a round ends at its (n - s)-th arrival.
    """
    fastest = np.sort(startups, axis=-1)
    return np.asarray(np.min(fastest + slope / np.arange(1, startups.shape[-1] + 1), axis=-1))


def genie_wf(startups: np.ndarray, slope: float, batches: float = 1.0) -> np.ndarray:
    """(rounds,) least seconds in which workers compute so many batches, each worker as much as it can from its start-up on.

    Water-filling: the level h with sum_i max(0, h - c_i) = batches x slope. With one batch, at most what any scheme takes for
    a round that holds all the work of one job.
    """
    fastest = np.sort(startups, axis=-1)
    levels = (batches * slope + np.cumsum(fastest, axis=-1)) / np.arange(1, startups.shape[-1] + 1)
    return np.asarray(np.min(levels, axis=-1))


def rounds_bounds(startups: np.ndarray, slope: float, jobs: int, master: float = 0.0) -> dict[str, float]:
    """Seconds of so many jobs, one in each round, with `master` seconds after each: the k-th round has row k modulo rounds."""
    used = startups[np.arange(jobs) % len(startups)]
    return {
        name: float(bound(used, slope).sum()) + jobs * master
        for name, bound in (("genieWF", genie_wf), ("genieSet", genie_set))
    }


def least_seconds(startups: np.ndarray, slope: float, models: int, jobs: int, master: float = 0.0) -> float:
    """Seconds that any scheduler needs, in rounds or not, for these jobs of all models on workers that do one thing at a time.

    A model's jobs follow one another, and each needs messages that were sent after it opened: at best every worker of the pool
    computes for nothing else, with the shortest start-up that it has anywhere in the trace. And all workers together must
    compute all jobs, each that does so after one such start-up at least. It is the larger of the two; start-ups may be chosen,
    for a message that is cancelled as soon as it is sent costs no time.
    """
    best = startups.min(axis=0)
    of_one_model = -(-jobs // models) * (float(genie_wf(best, slope)) + master)
    return max(of_one_model, float(genie_wf(best, slope, jobs)), jobs * master)
