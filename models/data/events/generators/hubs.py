"""Bursts of events around hubs: degrees with a heavy tail, events that share a time, nodes of one kind."""

import numpy as np

from distseq.models.data.events.data import EventData
from distseq.models.data.events.stream import EventStream

# Mean pause between bursts, in units of time; inside a burst it is 1.
PAUSE = 50


def hubs(
    events: int = 20_000,
    nodes: int = 1000,
    exponent: float = 1.2,
    burst: float = 8.0,
    ties: float = 0.3,
    loops: float = 0.0,
    seed: int = 0,
) -> EventData:
    """Events between nodes of one kind, in bursts; the events of a burst all have the same hub at one end, either one.

    Node r of the most active ones is drawn with probability proportional to (r + 1) ** -exponent, as a hub and as its partner, so
    that few nodes have most of the events; which ids these are is random. burst: the mean number of events of a burst. ties: the
    probability that an event has the time of the one before. loops: that its ends are the same node. ValueError for sizes that do
    not fit.
    """
    _check(events, nodes, exponent, burst, ties, loops)
    draws = np.random.default_rng(seed)
    weights = np.arange(1, nodes + 1) ** -exponent
    weights /= weights.sum()
    starts = draws.random(events) < 1 / burst
    starts[0] = True
    hub = draws.choice(nodes, int(starts.sum()), p=weights)[np.cumsum(starts) - 1]
    partner = draws.choice(nodes, events, p=weights)
    # One further along where both are the same node; then loops are as many as asked for.
    partner = np.where(partner == hub, (hub + 1) % nodes, partner)
    partner = np.where(draws.random(events) < loops, hub, partner)
    ids = draws.permutation(nodes)
    swapped = draws.random(events) < 0.5
    src, dst = np.where(swapped, partner, hub), np.where(swapped, hub, partner)
    # Pareto: most pauses are short, a few are very long.
    pause = np.where(starts, 1 + np.floor(PAUSE * draws.pareto(2.0, events)), 1).astype(np.int64)
    pause[draws.random(events) < ties] = 0
    return EventData(EventStream(ids[src], ids[dst], np.cumsum(pause), nodes=nodes, destinations=(0, nodes)))


def _check(events: int, nodes: int, exponent: float, burst: float, ties: float, loops: float) -> None:
    if events < 1 or nodes < 2:
        raise ValueError(f"hubs needs events >= 1 and nodes >= 2: got events={events}, nodes={nodes}")
    if not (exponent >= 0 and burst >= 1):
        raise ValueError(f"hubs needs exponent >= 0 and burst >= 1: got exponent={exponent}, burst={burst}")
    if not (0 <= ties <= 1 and 0 <= loops <= 1):
        raise ValueError(f"hubs needs ties and loops in 0 .. 1: got ties={ties}, loops={loops}")
