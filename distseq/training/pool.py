"""Creates the worker pool described by the `[pool]` table."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from distseq.cluster.pool import Pool
from distseq.cluster.ray import check_installed
from distseq.cluster.simulated import SimulatedPool
from distseq.cluster.trace import Trace
from distseq.config.schema import Config, PoolConfig
from distseq.learners.fleet import Fleet

if TYPE_CHECKING:
    from distseq.cluster.ray.session import Access


def check_pool(options: PoolConfig) -> None:
    """ValueError for a pool that cannot start: no Ray installed, no cluster at the address, a wrong runtime environment.

    Within seconds, so that it comes before data are opened and anything is written.
    """
    if options.kind == "ray":
        check_installed("pool ray")
        from distseq.cluster.ray.resources import HostResources
        from distseq.cluster.ray.runtime_env import check
        from distseq.cluster.ray.session import locate

        HostResources(options.cpus, options.gpus, options.resources)
        check(options.runtime_env)
        locate(_access(options))


def make_pool(config: Config, fleet: Fleet, trace: Trace, say: Callable[[str], object]) -> Pool:
    """A started pool of the configured kind, with the delays of `trace` injected or simulated.

    say: takes lines about what is awaited. ValueError when there is no room, or no cluster at the address; PoolError when it does
    not start.
    """
    options = config.pool
    if options.kind == "simulated":
        # On the CPU the master's own Work serves: a second one would hold every model and data set twice.
        work = fleet.work if options.device == "cpu" else fleet.spec.load()
        return SimulatedPool(trace, work, unfinished=options.unfinished, compute=options.compute)
    if options.kind == "local":
        from distseq.cluster.local.pool import local_pool

        return local_pool(
            options.workers,
            fleet.spec,
            hosts=options.hosts,
            delays=trace,
            silent_after=options.silent_after,
            ready_within=options.ready_within,
            row_timeout=options.row_timeout,
            shared_memory=options.shared_memory,
        )
    from distseq.cluster.ray.pool import ray_pool
    from distseq.cluster.ray.resources import HostResources
    from distseq.cluster.ray.transport import Hosting

    return ray_pool(
        options.workers,
        fleet.spec,
        hosts=options.hosts,
        access=_access(options),
        hosting=Hosting(
            HostResources(options.cpus, options.gpus, options.resources), options.runtime_env, options.ready_within
        ),
        delays=trace,
        silent_after=options.silent_after,
        elastic=options.elastic,
        say=say,
        row_timeout=options.row_timeout,
    )


def _access(options: PoolConfig) -> "Access":
    from distseq.cluster.ray.session import Access

    return Access(options.address, options.token_file, options.insecure, options.log_to_driver)
