"""Creates the worker pool described by the `[pool]` table."""

from distseq.cluster.pool import Pool
from distseq.cluster.ray import check_installed
from distseq.cluster.simulated import SimulatedPool
from distseq.cluster.trace import Trace
from distseq.config.schema import Config
from distseq.learners.fleet import Fleet


def make_pool(config: Config, fleet: Fleet, trace: Trace) -> Pool:
    """A started pool of the configured kind, with the delays of `trace` injected or simulated.

    ValueError when there is no room, or no cluster at the address; PoolError when it does not start.
    """
    options = config.pool
    if options.kind == "simulated":
        # On the CPU the master's own Work serves: a second one would hold every model and data set twice.
        work = fleet.work if options.device == "cpu" else fleet.spec.load()
        return SimulatedPool(trace, work, unfinished=options.unfinished, compute=options.compute)
    if options.kind == "local":
        from distseq.cluster.local.pool import local_pool

        return local_pool(options.workers, fleet.spec, hosts=options.hosts, delays=trace)
    check_installed("pool ray")
    from distseq.cluster.ray.pool import ray_pool
    from distseq.cluster.ray.resources import HostResources

    return ray_pool(
        options.workers,
        fleet.spec,
        hosts=options.hosts,
        address=options.address,
        resources=HostResources(options.cpus, options.gpus, options.resources),
        delays=trace,
        elastic=options.elastic,
    )
