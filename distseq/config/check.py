"""`check`: everything about a configuration that can be wrong without opening data, building models or starting anything.

Every command and `distseq.train`, `simulate` and `plan` call it before they write or start anything. It writes nothing, starts
nothing, and reads nothing but the trace file that `delays` names, and the module of a scheme of the user's own.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from distseq.cluster.profiles import delays
from distseq.cluster.ray.resources import HostResources
from distseq.config.names import check_names
from distseq.config.schema import PARTS, Config, LearnerConfig, PoolConfig, SchedulerConfig
from distseq.config.silent import check_given, check_set
from distseq.config.strategy import Strategy, strategy
from distseq.scheduling.adaptive.cost import prices
from distseq.scheduling.closing import Mu, Safe
from distseq.scheduling.round_scheduler import check_delay


def check(config: Config, given: Mapping[str, Any] | None = None, *, resumed: bool = False) -> None:
    """ValueError, in one line, for the first thing that is wrong.

    given: options of the command line or of Python, which must say something to the chosen scheduler and pool, even where they
        repeat a default; keys of the file only where they differ from it.
    resumed: the names of the learners are those of an existing run.

    Example: check(load_config("examples/main.toml"))
    """
    if not resumed:
        check_names(config.learner)
    _check_numbers(config)
    strategy_of(config).check(config.run.dtype, elastic=config.pool.elastic)
    delays(config.pool.delays, config.pool.workers, config.run.seed)
    check_given([config], given or {})
    check_set(config)


def strategy_of(config: Config) -> Strategy:
    """The strategy of a configuration. ValueError for what cannot be scheduled: unknown schemes, numbers out of range."""
    own, n = config.scheduler, config.pool.workers
    # Whichever rule was chosen: a number that is none is a mistake even where nothing reads it.
    Safe(own.cutoff)
    Mu(own.mu)
    if own.prices:
        prices(own.prices)
    found = strategy(config)
    if found.places > n:
        raise ValueError(f"places must be at most the number of workers: got places={found.places}, workers={n}")
    # Before its codes are made, one for each group.
    groups = len(found.scheme.tolerance)
    if groups > PARTS:
        raise ValueError(f"{found.name} cuts a job into {groups} parts: at most {PARTS} are possible")
    return found


def check_candidates(configs: Sequence[Config], given: Mapping[str, Any]) -> None:
    """`check` of the candidates of one comparison: an option must say something to one of them."""
    for config in configs:
        # Nothing is computed, so that no code is too imprecise.
        check_delay(strategy_of(config).scheme, len(config.learner))
    check_given(configs, given)


def placeholder(
    models: int, *, pool: PoolConfig, scheduler: SchedulerConfig | None = None, batch: int = PARTS
) -> Config:
    """A configuration of learners that are never made, for commands that train nothing."""
    learners = tuple(LearnerConfig(f"model-{m}", "none:None", "none", batch) for m in range(models))
    return Config(learners, pool=pool, scheduler=scheduler or SchedulerConfig())


def _check_numbers(config: Config) -> None:
    pool = config.pool
    if pool.hosts is not None and pool.hosts > pool.workers:
        raise ValueError(f"a pool needs 1 <= hosts <= workers: got workers={pool.workers}, hosts={pool.hosts}")
    for name, amount in pool.resources.items():
        if isinstance(amount, bool) or not isinstance(amount, int | float) or not math.isfinite(amount):
            raise ValueError(f"resources in [pool] must be finite numbers: got {name} = {amount!r}")
    HostResources(pool.cpus, pool.gpus, pool.resources)
    for one in config.learner:
        steps = config.run.steps if one.steps is None else one.steps
        if steps % one.accumulate:
            raise ValueError(f"learner {one.name}: steps={steps} is not a multiple of accumulate={one.accumulate}")
