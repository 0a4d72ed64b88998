"""One large batch in four modes: what its parts compute, and the state after it. Pure functions.

  parallel   every event reads the memory before the batch
  pres       the same, corrected by a prediction, with a loss of coherence (PRES, Su et al. 2024)
  replay     memory is advanced in micro-batches; the events of each read the memory before it
  exact      every event reads the memory after all events before it, that of neighbors included
With the state S before the batch B, loss(B) = sum over events of loss(e; theta, S) / |B| is a sum over parts, however it is cut:
  gradient   sum over parts of grad part_loss(model, prepared, events of the part)
  state      advance(model, graph, S, batch), under the parameters before the step, the same on every replica
In mode pres, beta / |V_B| sum_v (1 - cos(s_prev, s)) over the nodes V_B of the batch is added, each node in the part that has its
last event.
Shapes: P events of a part, Q queries, C candidates.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy, softplus

from distseq.models.temporal.advance import batch_changes
from distseq.models.temporal.embed import distinct, embedded, read
from distseq.models.temporal.graph import Graph
from distseq.models.temporal.layers.heads import LinkHead
from distseq.models.temporal.model import TemporalModel
from distseq.models.temporal.prepared import Prepared, check_batch, prepare
from distseq.models.temporal.state import Changes, State

NEGATIVES, POSITIVE_HEAD, NEGATIVE_HEAD = 0, 1, 2  # slots of draws
TILE = 2048  # queries that `scores` embeds at once, so that its buffers do not grow with the number of candidates


def negatives(prepared: Prepared, events: np.ndarray) -> np.ndarray:
    """(P,) the random destination of each event, which may be the true one."""
    return prepared.draws.integers(events, NEGATIVES, *prepared.graph.destinations)


def part_loss(model: TemporalModel, prepared: Prepared, events: np.ndarray) -> Tensor:
    """The loss of some events of the batch (P,), as indices of the stream, divided by the number of events of the whole batch.

    ValueError, naming the first, for an event that is not one of the batch.
    """
    return event_losses(model, prepared, events).sum() / (prepared.batch.stop - prepared.batch.start)


def event_losses(model: TemporalModel, prepared: Prepared, events: np.ndarray) -> Tensor:
    """(P,) the losses of some events of the batch, of which the loss of the batch is the mean over all its events.

    In mode pres the last event of a node has the node's loss of coherence too. ValueError as in part_loss.
    """
    graph, batch = prepared.graph, prepared.batch
    outside = (events < batch.start) | (events >= batch.stop)
    if outside.any():
        raise ValueError(f"event {events[outside][0]} is not one of the batch {batch.start} .. {batch.stop - 1}")
    link, rate = isinstance(model.head, LinkHead), model.options.dropout
    drop = model.training and rate > 0
    ends = [graph.src[events], graph.dst[events], negatives(prepared, events)] if link else [graph.src[events]]
    queries, index = distinct(model, prepared, np.concatenate(ends), np.tile(events, len(ends)))
    # In mode pres there are no versions, so a node is its own row id.
    owned = np.isin(prepared.last, events) if model.options.mode == "pres" else None
    rows = read(model, prepared, queries.own, queries.near, None if owned is None else prepared.nodes[owned])
    found = embedded(model, prepared, queries, rows, drop)[torch.from_numpy(index)]
    h = found.view(len(ends), len(events), model.options.width)

    def kept(slot: int) -> Tensor | None:
        return prepared.draws.kept((events,), slot, model.options.width, rate, h[0].dtype) if drop else None

    if isinstance(model.head, LinkHead):
        (source, destination), other = model.head.halves(h[0], h[1]), model.head.halves(h[0], h[2])[1]
        true = model.head.logit(source, destination, kept(POSITIVE_HEAD))
        false = model.head.logit(source, other, kept(NEGATIVE_HEAD))
        found_P = softplus(-true) + softplus(false)
    else:
        assert graph.label is not None
        labels = torch.from_numpy(np.asarray(graph.label[events], np.int64))
        found_P = cross_entropy(model.head(h[0], kept(POSITIVE_HEAD)), labels, reduction="none")
    if owned is None:
        return found_P
    at = torch.from_numpy(np.searchsorted(rows.ids, prepared.nodes[owned]))
    prev, now = rows.before[at], rows.value[at]
    # Of memory 0 there is no direction to keep.
    lost = (1 - cosine_similarity(prev, now)) * (prev != 0).any(1)
    share = model.options.beta * (batch.stop - batch.start) / len(prepared.nodes)
    order = np.argsort(events)
    to = torch.from_numpy(order[np.searchsorted(events, prepared.last[owned], sorter=order)])
    return found_P.index_add(0, to, share * lost)


def changes(
    model: TemporalModel, graph: Graph, state: State, batch: slice, prepared: Prepared | None = None
) -> Changes:
    """What a batch changes in the state before it, from the parameters before its step; `state.apply` puts it in.

    `prepared`, of the same state, batch and parameters, saves a second scan in modes replay and exact. ValueError as in prepare.
    """
    check_batch(graph, state, batch)
    if prepared is None and model.options.mode in ("replay", "exact"):
        prepared = prepare(model, graph, state, batch)
    if prepared is not None and prepared.after is not None:
        return prepared.after
    return batch_changes(model, graph, state, batch)


def advance(model: TemporalModel, graph: Graph, state: State, batch: slice, prepared: Prepared | None = None) -> State:
    """The state after a batch, as in `changes`; the state given is left as it is."""
    new = state.copy()
    new.apply(changes(model, graph, state, batch, prepared), batch.stop)
    return new


@torch.no_grad()
def scores(
    model: TemporalModel, prepared: Prepared, events: np.ndarray, sources: np.ndarray, candidates: np.ndarray
) -> Tensor:
    """(Q, C) logits of links from sources (Q,) to candidates (Q, C) as of events (Q,) of the batch, without dropout.

    Each event gives the time and the version of memory. Each node is embedded once for each time, and with visible="batch" once.
    ValueError if the model's head predicts no links.
    """
    if not isinstance(model.head, LinkHead):
        raise ValueError("scores needs a model with head='link'")
    nodes = np.concatenate([sources, candidates.reshape(-1)])
    queries, index = distinct(model, prepared, nodes, np.concatenate([events, np.repeat(events, candidates.shape[1])]))
    rows = read(model, prepared, queries.own, queries.near)
    halves = []
    for start in range(0, len(queries.nodes), TILE):
        part = slice(start, start + TILE)
        found = None if queries.found is None else type(queries.found)(*(each[part] for each in queries.found))
        near = None if queries.near is None else queries.near[part]
        tile = type(queries)(queries.nodes[part], queries.events[part], queries.own[part], near, found)
        h = embedded(model, prepared, tile, rows, False)
        halves.append(torch.stack(model.head.halves(h, h)))
    source, destination = torch.cat(halves, 1)
    at, Q = torch.from_numpy(index), len(events)
    ends = destination[at[Q:]].view(Q, candidates.shape[1], -1)
    return model.head.logit(source[at[:Q], None], ends)


@torch.no_grad()
def class_logits(model: TemporalModel, prepared: Prepared, events: np.ndarray) -> Tensor:
    """(P, classes) logits of the source of each event, without dropout. ValueError if the model's head predicts links."""
    if isinstance(model.head, LinkHead):
        raise ValueError("class_logits needs a model with head='class'")
    queries, index = distinct(model, prepared, prepared.graph.src[events], events)
    rows = read(model, prepared, queries.own, queries.near)
    return model.head(embedded(model, prepared, queries, rows, False)[torch.from_numpy(index)])
