"""Lower bounds on seconds per job, which only a scheduler that knew every start-up in advance could reach."""

import numpy as np


def genie_set(startups: np.ndarray, slope: float) -> np.ndarray:
    """(rounds,) the least seconds of a round in which the fastest m workers do 1/m of one job each, for the best m.

    `startups`: (rounds, n) seconds. `slope`: seconds of compute per batch. No (n, s) gradient code is faster, for any s, even if
    its rounds end at the (n - s)-th arrival.
    """
    # The m-th fastest of m workers ends last, and (n, s) gradient coding needs the (n - s)-th arrival with a load of at least
    # 1 / (n - s).
    fastest = np.sort(startups, axis=-1)
    return np.asarray(np.min(fastest + slope / np.arange(1, startups.shape[-1] + 1), axis=-1))


def genie_wf(startups: np.ndarray, slope: float, batches: float = 1.0) -> np.ndarray:
    """(rounds,) the least seconds in which workers compute `batches` batches, each as much as it can once it has started up.

    With one batch, no scheme is faster in a round that holds all the work of one job.
    """
    fastest = np.sort(startups, axis=-1)
    # Water-filling: the level h with sum_i max(0, h - c_i) = batches x slope. If the m fastest workers share the work, they end
    # together at levels[m - 1]; for too few or too many workers that is later, so the least level is the answer.
    levels = (batches * slope + np.cumsum(fastest, axis=-1)) / np.arange(1, startups.shape[-1] + 1)
    return np.asarray(np.min(levels, axis=-1))


def rounds_bounds(startups: np.ndarray, slope: float, jobs: int, master: float = 0.0) -> dict[str, float]:
    """Least seconds for `jobs` jobs, one per round and each followed by `master` seconds, by bound.

    Round k has the start-ups of row k modulo rounds.
    """
    used = startups[np.arange(jobs) % len(startups)]
    return {
        name: float(bound(used, slope).sum()) + jobs * master
        for name, bound in (("genieWF", genie_wf), ("genieSet", genie_set))
    }


def least_seconds(startups: np.ndarray, slope: float, models: int, jobs: int, master: float = 0.0) -> float:
    """The least seconds for `jobs` jobs of `models` models, with rounds or without, if workers do one thing at a time.

    It is the larger of two bounds. The jobs of one model follow one another, and each needs messages that were sent after it was
    opened: at best all workers compute for this job alone. And all workers together must compute all jobs.
    """
    # Each worker has the shortest start-up of its column: a scheduler may choose, because a message that is cancelled as soon as
    # it is sent costs no time, and uses up a row of the trace.
    best = startups.min(axis=0)
    of_one_model = -(-jobs // models) * (float(genie_wf(best, slope)) + master)
    return max(of_one_model, float(genie_wf(best, slope, jobs)), jobs * master)
