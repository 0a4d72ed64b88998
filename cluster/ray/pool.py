"""A worker pool on Ray actors: by default as many as the cluster has room for, but at most one per worker."""

from collections.abc import Callable

from distseq.cluster.hosts.host_pool import HostPool, check_numbers
from distseq.cluster.hosts.limits import SILENT
from distseq.cluster.ray.session import Access
from distseq.cluster.ray.transport import Hosting, RayTransport
from distseq.cluster.trace import Trace
from distseq.cluster.work import WorkSpec


def ray_pool(
    n: int,
    work: WorkSpec,
    *,
    hosts: int | None = None,
    access: Access | None = None,
    hosting: Hosting | None = None,
    delays: Trace | None = None,
    silent_after: float = SILENT,
    row_timeout: float | None = None,
    elastic: bool = False,
    say: Callable[[str], object] = lambda line: None,
) -> HostPool:
    """A pool of n workers on `hosts` actors, by default as many as fit; the other arguments as in HostPool.

    `access`: the Ray to use; `hosting`: what each actor reserves, by default one CPU. `say` takes what is awaited, in lines.
    ValueError if the hosts do not fit, or if there is no cluster at the address; PoolError if they are not ready in time.
    """
    check_numbers(n, 1 if hosts is None else hosts, delays)
    hosting = Hosting() if hosting is None else hosting
    transport = RayTransport(work, Access() if access is None else access, hosting, say)
    try:
        # Without room for any, an autoscaler is asked for all.
        started = hosts or min(n, transport.room() or n)
        transport.reserve(started)
        most = n if elastic or hosts is None else hosts
        return HostPool(
            n,
            transport,
            started,
            delays=delays,
            silent_after=silent_after,
            row_timeout=row_timeout,
            ready_within=hosting.ready_within,
            elastic=elastic,
            most=most,
        )
    except BaseException:
        transport.close()
        raise
