"""Mode exact: inside one batch, for each event the memory that batch size 1 would give it.

Each event makes two versions, one of each endpoint: row = cell([own | other | f | phi(t - t_own)], own) from both's latest rows
before it. Events whose endpoints' rows are known form a level; no two events of a level share a node, so a level is one
update of a matrix, and any order that respects the levels gives the same rows. The rows are constants (no gradient): who reads a
version recomputes its one update from own and other (distseq.models.temporal.versions).
Shapes: b events, 2 b versions (of event i: 2 i of src, 2 i + 1 of dst), V nodes of the batch, d width.
"""

from itertools import pairwise

import numpy as np
import torch

from distseq.models.temporal.graph import Graph
from distseq.models.temporal.layers.updaters import LEAST, RecurrentUpdater, filled
from distseq.models.temporal.model import TemporalModel, row_time
from distseq.models.temporal.state import Changes, State
from distseq.models.temporal.threads import one_thread
from distseq.models.temporal.versions import Versions


def levels(ends: np.ndarray, nodes: int) -> np.ndarray:
    """The level (b,) of each event, from 0: the first at which both endpoints' earlier events are done.

    ends: (2 b,) of 0 .. nodes - 1, src and dst of each event in turn.

    >>> import numpy as np
    >>> levels(np.array([0, 1, 2, 3, 1, 2, 3, 3]), 4).tolist()
    [0, 0, 1, 1]
    """
    free, level = [0] * nodes, []
    both = iter(ends.tolist())
    # A loop over Python's own numbers: each event depends on the one before, and 3,200 of them take a millisecond.
    for src, dst in zip(both, both, strict=True):
        here = free[src] if free[src] > free[dst] else free[dst]
        level.append(here)
        free[src] = free[dst] = here + 1
    return np.array(level, np.int64)


def previous(ends: np.ndarray) -> np.ndarray:
    """(2 b,) the version that each version's own row is: the last one of its node from an earlier event, -1 if there is none."""
    order = np.argsort(ends, kind="stable")
    before = np.full(len(ends), -1)
    same = ends[order[1:]] == ends[order[:-1]]
    before[order[1:][same]] = order[:-1][same]
    loop = np.flatnonzero(ends[0::2] == ends[1::2])
    # Both versions of a self-loop come from the row before it.
    before[2 * loop + 1] = before[2 * loop]
    return before


@torch.no_grad()
@one_thread()
def exact_versions(model: TemporalModel, graph: Graph, state: State, batch: slice) -> tuple[Versions, Changes]:
    """All versions of a batch, and what the batch changes: of each node the last version's inputs, not its output."""
    assert isinstance(model.updater, RecurrentUpdater)
    ends = graph.ends(batch)
    nodes, compact = np.unique(ends, return_inverse=True)
    V, count = len(nodes), len(ends)
    raw = state.rows(nodes)
    level, before = np.repeat(levels(compact, V), 2), previous(compact)
    # Versions are computed in order of levels; `rank` is the place of each in the table, behind the rows before the batch.
    order = np.argsort(level, kind="stable")
    rank = np.empty(count, np.int64)
    rank[order] = np.arange(count)
    own = np.where(before < 0, compact, V + rank[before])
    other = own.reshape(-1, 2)[:, ::-1].reshape(-1)
    events = np.repeat(np.arange(batch.start, batch.stop), 2)
    time = graph.time[events]
    updated = np.where(before < 0, row_time(raw).numpy()[compact], time[before])
    constant = model.updater.constant(model.rest(graph, events[order], torch.from_numpy((time - updated)[order])))
    table = raw["memory"].new_empty(V + count, model.options.width)
    table[:V] = model.flush(graph, raw)
    cuts = np.searchsorted(level[order], np.arange(level.max(initial=-1) + 2)).tolist()
    step = model.updater.stepper()
    pairs, width = torch.from_numpy(np.stack([own[order], other[order]], 1).reshape(-1)), 2 * model.options.width
    for first, last in pairwise(cuts):
        both, beside = table.index_select(0, pairs[2 * first : 2 * last]).view(-1, width), constant[first:last]
        if last - first < LEAST:
            few = table.new_empty(LEAST, model.options.width)
            more, constants = filled(both, beside)
            step(more, constants, few)
            table[V + first : V + last] = few[: last - first]
        else:
            step(both, beside, table[V + first : V + last])
    # By node, then by event; both versions of a self-loop are the same.
    by_node = np.argsort(compact, kind="stable")
    fields = {
        "node": torch.from_numpy(ends[by_node]),
        "memory": table.index_select(0, torch.from_numpy(own[by_node])),
        "updated": torch.from_numpy(updated[by_node]),
        "other": table.index_select(0, torch.from_numpy(other[by_node])),
        "event": torch.from_numpy(events[by_node]),
        "time": torch.from_numpy(time[by_node]),
        "valid": torch.ones(count, dtype=torch.bool),
    }
    versions = Versions(state, ends[by_node], events[by_node] - batch.start, fields, len(ends) // 2 + 1)
    final = versions.last()
    at = torch.from_numpy(final)
    return versions, Changes(nodes, events[by_node][final], {name: field[at] for name, field in fields.items()})
