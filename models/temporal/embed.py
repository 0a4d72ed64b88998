"""Embeddings of nodes at the times of events, from the rows of memory that they read.

Each row that a part reads is updated once, however many queries read it; each pair of node and time is embedded once.
Shapes: Q queries, R rows, k neighbors, d width.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from distseq.models.temporal.model import TemporalModel, row_time
from distseq.models.temporal.neighbors import Recent
from distseq.models.temporal.prepared import Prepared

ATTENTION = 3  # the slot of draws for dropout on attention's weights


class Queries(NamedTuple):
    """Distinct pairs of a node and the event that stands for its time and its version of memory."""

    nodes: np.ndarray  # (Q,)
    events: np.ndarray  # (Q,)
    own: np.ndarray  # (Q,) row ids
    near: np.ndarray | None  # (Q, k) row ids of neighbors, own where there is none
    found: Recent | None


class Rows(NamedTuple):
    """The memory that some queries read."""

    ids: np.ndarray  # (R,) row ids, sorted
    value: Tensor  # (R, d) with gradient, messages applied
    before: Tensor  # (R, d) the memory before that
    time: Tensor  # (R,) int64, of the last event that is included


def distinct(
    model: TemporalModel, prepared: Prepared, nodes: np.ndarray, events: np.ndarray
) -> tuple[Queries, np.ndarray]:
    """Each pair once, and for all of them (...) the index of the query."""
    graph, options, stride = prepared.graph, model.options, prepared.graph.events
    start = prepared.start[events - prepared.batch.start]
    cut = graph.first_simultaneous(events)
    # Simultaneous events of a micro-batch see the same neighbors and memory. In mode exact each event is its own micro-batch.
    stands = start if options.visible == "batch" else np.maximum(cut, start)
    pairs, index = np.unique(nodes * stride + stands, return_inverse=True)
    nodes, events = np.divmod(pairs, stride)
    order = prepared.order[events - prepared.batch.start]
    own = prepared.versions.locate(nodes, order)
    if options.embedding != "attention":
        return Queries(nodes, events, own, None, None), index.reshape(-1)
    before = events if options.visible == "batch" else graph.first_simultaneous(events)
    found = graph.neighbors.before(nodes, before, options.neighbors)
    near = np.where(found.valid, prepared.versions.locate(found.nodes, order[:, None]), own[:, None])
    return Queries(nodes, events, own, near, found), index.reshape(-1)


def read(model: TemporalModel, prepared: Prepared, *ids: np.ndarray | None) -> Rows:
    """The rows with any of these ids, each updated once."""
    # Marked in a table instead of sorted: a part names ten times as many ids as there are rows.
    mark = np.zeros(len(prepared.state) + len(prepared.versions.nodes), bool)
    for each in ids:
        if each is not None:
            mark[each] = True
    distinct_ids = np.flatnonzero(mark)
    raw = prepared.versions.rows(distinct_ids)
    return Rows(distinct_ids, model.flush(prepared.graph, raw), raw["memory"], row_time(raw))


def embedded(model: TemporalModel, prepared: Prepared, queries: Queries, rows: Rows, drop: bool) -> Tensor:
    """(Q, d) embeddings; `drop` applies dropout to the weights of attention."""
    graph, options = prepared.graph, model.options
    at = torch.from_numpy(np.searchsorted(rows.ids, queries.own))
    own = rows.value.index_select(0, at)
    now = torch.from_numpy(graph.time[queries.events])
    if model.drift is not None:
        # Of a node's own pace: nodes / 2 times the mean time between two events of the stream.
        pace = graph.scaled(now - rows.time[at], own.dtype)[:, None] * (2 / graph.nodes)
        return own * (1 + pace * model.drift)
    if model.attention is None or queries.near is None or queries.found is None:
        return own
    lookup = np.empty(len(prepared.state) + len(prepared.versions.nodes), np.int64)
    lookup[rows.ids] = np.arange(len(rows.ids))
    near = torch.from_numpy(lookup[queries.near])
    s_QKD = rows.value.index_select(0, near.flatten()).unflatten(0, near.shape)
    f_QKF = graph.features(queries.found.events, own.dtype)
    phi_QKT = model.encode(graph, now[:, None] - torch.from_numpy(queries.found.times))
    kept = None
    if drop:
        width = options.heads * options.neighbors
        kept = prepared.draws.kept((queries.nodes, queries.events), ATTENTION, width, options.dropout, own.dtype)
        kept = kept.view(-1, options.heads, options.neighbors)
    valid = torch.from_numpy(queries.found.valid)
    return model.attention(own, model.zero(), (s_QKD, f_QKF, phi_QKT), valid, kept)
