"""The next state of memory, S' = F(S, batch; theta): deterministic, forward only, every message from the memory before the batch.

Of a node with events in the batch the waiting message is applied (its memory is then that of before the batch), and its last
message of the batch waits instead. Nodes without events keep theirs, to be applied whenever they are read.
Shapes: V nodes of the batch, b events, d width, S slots, A nodes that get mail.
"""

import numpy as np
import torch
from torch import Tensor

from distseq.models.temporal.graph import Graph
from distseq.models.temporal.model import TemporalModel, row_time, waiting
from distseq.models.temporal.state import Changes, Fields, State
from distseq.models.temporal.threads import one_thread


@torch.no_grad()
@one_thread()
def batch_changes(model: TemporalModel, graph: Graph, state: State, batch: slice) -> Changes:
    """What the events of a batch change, all at once."""
    options = model.options
    nodes, last = graph.last_events(batch)
    far = graph.src[last] + graph.dst[last] - nodes
    around = None
    read = nodes
    if options.other == "neighbors":
        around = graph.neighbors.before(far, graph.first_simultaneous(last), options.neighbors)
        read = np.union1d(nodes, around.nodes)
    raw = state.rows(read)
    row = model.flush(graph, raw)
    at = np.searchsorted(read, nodes)
    own = {name: field[torch.from_numpy(at)] for name, field in raw.items()}
    new = own | {"memory": row[torch.from_numpy(at)], "updated": row_time(own)}
    if options.mode == "pres":
        new |= _tracked(model, graph, own, new["memory"])
    if options.updater == "mailbox":
        return _delivered(model, graph, state, batch, Changes(nodes, last, new))
    new["event"], new["valid"] = torch.from_numpy(last), torch.ones(len(nodes), dtype=torch.bool)
    new["time"] = torch.from_numpy(graph.time[last])
    new["other"] = row[torch.from_numpy(np.searchsorted(read, far))]
    if around is not None:
        ids = torch.from_numpy(np.searchsorted(read, around.nodes))
        new["around"] = row[ids] * torch.from_numpy(around.valid)[..., None]
    if options.aggregation == "mean":
        new |= _means(model, graph, batch, nodes, new)
    return Changes(nodes, last, new)


def _tracked(model: TemporalModel, graph: Graph, raw: Fields, row: Tensor) -> Fields:
    """The trackers after one more observation, of nodes whose message was applied (PRES, eq. 9)."""
    innovation, observed = row - raw["memory"], waiting(raw)
    if model.options.prediction == "time":
        elapsed = model.elapsed(graph, raw)
        # A rate over no time is none.
        observed = observed & (elapsed[:, 0] > 0)
        innovation = innovation / torch.where(elapsed > 0, elapsed, 1)
    innovation = innovation * observed[:, None]
    return {"xi": raw["xi"] + innovation, "psi": raw["psi"] + innovation**2, "count": raw["count"] + observed}


def _means(model: TemporalModel, graph: Graph, batch: slice, nodes: np.ndarray, new: Fields) -> Fields:
    """Means over each node's messages in the batch, summed in order of events; a self-loop sends both of its messages."""
    ends = graph.ends(batch)
    events = np.repeat(np.arange(batch.start, batch.stop), 2)
    at = np.searchsorted(nodes, ends)
    far = at.reshape(-1, 2)[:, ::-1].reshape(-1).copy()
    to = torch.from_numpy(at)
    seconds = torch.from_numpy(graph.time[events]) - new["updated"][to]
    sums = torch.cat([new["memory"][torch.from_numpy(far)], model.rest(graph, events, seconds)], 1)
    total = sums.new_zeros(len(nodes), sums.shape[1]).index_add_(0, to, sums)
    mean = total / torch.bincount(to, minlength=len(nodes))[:, None]
    d, features = model.options.width, model.options.features
    return {
        "other": mean[:, :d],
        "mean_features": mean[:, d : d + features],
        "mean_encoding": mean[:, d + features :],
    }


def _delivered(model: TemporalModel, graph: Graph, state: State, batch: slice, own: Changes) -> Changes:
    """The mail of each event, put into the slots of both endpoints and of their recent neighbors; the oldest mails drop out."""
    S, b = model.options.slots, batch.stop - batch.start
    ends, events = graph.ends(batch), np.repeat(np.arange(batch.start, batch.stop), 2)
    found = graph.neighbors.before(ends, graph.first_simultaneous(events), model.options.neighbors)
    receiver = np.concatenate([ends, found.nodes[found.valid]])
    sent = np.concatenate([events, np.broadcast_to(events[:, None], found.valid.shape)[found.valid]])
    # Each receiver gets an event's mail once, and mails in order of events.
    receiver, local = np.divmod(np.unique(receiver * b + (sent - batch.start)), b)
    nodes, first, count = np.unique(receiver, return_index=True, return_counts=True)
    event = batch.start + local
    fields = state.rows(nodes)
    at = torch.from_numpy(np.searchsorted(nodes, own.nodes))
    for name in own.fields:
        if not name.startswith("mail"):
            fields[name][at] = own.fields[name]
    # Old slots and new mails in one line, of which the last S stay: place c + p of it goes to slot p.
    place = count[:, None] + np.arange(S)
    old = torch.from_numpy(place < S)
    kept = torch.from_numpy(np.minimum(place, S - 1))
    arrived = event[np.where(place < S, 0, first[:, None] + place - S)]
    ends_at = np.searchsorted(own.nodes, np.stack([graph.src[arrived], graph.dst[arrived]], -1))
    mail = own.fields["memory"][torch.from_numpy(ends_at)].flatten(2)
    before = fields["mail"].gather(1, kept[..., None].expand(-1, -1, mail.shape[2]))
    fields["mail"] = torch.where(old[..., None], before, mail)
    arriving = {
        "mail_event": torch.from_numpy(arrived),
        "mail_time": torch.from_numpy(graph.time[arrived]),
        "mail_valid": torch.ones_like(old),
    }
    for name, value in arriving.items():
        fields[name] = torch.where(old, fields[name].gather(1, kept), value)
    return Changes(nodes, event[first + count - 1], fields)
