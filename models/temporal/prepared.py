"""What all parts of a batch share: the versions of memory that its events read, made by a scan without gradient."""

from dataclasses import dataclass

import numpy as np
import torch

from distseq.models.temporal.advance import batch_changes
from distseq.models.temporal.draws import Draws
from distseq.models.temporal.exact import exact_versions
from distseq.models.temporal.graph import Graph
from distseq.models.temporal.model import TemporalModel
from distseq.models.temporal.state import Changes, State
from distseq.models.temporal.versions import Versions


@dataclass(frozen=True, eq=False)
class Prepared:
    """A batch and the state before it, which must not be changed in place while parts are computed.

    batch: its events, start .. stop of the stream. order: (b,) which versions each event reads, those of smaller order.
    start: (b,) the first event of each event's micro-batch. nodes: (V,) those of the batch, sorted. last: (V,) their last events.
    after: what the batch changes, where the scan has made it.
    """

    graph: Graph
    state: State
    batch: slice
    draws: Draws
    versions: Versions
    order: np.ndarray
    start: np.ndarray
    nodes: np.ndarray
    last: np.ndarray
    after: Changes | None


def prepare(model: TemporalModel, graph: Graph, state: State, batch: slice, draws: Draws | None = None) -> Prepared:
    """The scan of a batch under the current parameters; `draws`, of negatives and dropout, are by default those of seed 0.

    ValueError unless the batch is start .. stop of the stream, not empty, and begins where the state has stopped.
    """
    check_batch(graph, state, batch)
    b, size = np.arange(batch.start, batch.stop), batch.stop - batch.start
    after: Changes | None = None
    versions, micro = Versions.none(state), size
    if model.options.mode == "exact":
        versions, after = exact_versions(model, graph, state, batch)
        micro = 1
    elif model.options.mode == "replay":
        micro = model.options.micro
        versions, after = _replayed(model, graph, state, batch)
    order = (b - batch.start) // micro
    nodes, last = graph.last_events(batch)
    return Prepared(
        graph, state, batch, draws or Draws(0), versions, order, batch.start + order * micro, nodes, last, after
    )


def check_batch(graph: Graph, state: State, batch: slice) -> None:
    """ValueError, naming the slice, for a batch that the state cannot be advanced by."""
    start, stop = batch.start, batch.stop
    if batch.step not in (None, 1) or None in (start, stop) or not 0 <= start < stop <= graph.events:
        raise ValueError(f"a batch is a slice start:stop of the stream's {graph.events} events: got {batch}")
    if state.position != start:
        raise ValueError(f"the state includes {state.position} events, so the next batch begins there: got {batch}")


def _replayed(model: TemporalModel, graph: Graph, state: State, batch: slice) -> tuple[Versions, Changes]:
    """A version for each node that a micro-batch changes, and the last one of each."""
    work, made, micro = state.copy(), [], model.options.micro
    for start in range(batch.start, batch.stop, micro):
        part = slice(start, min(start + micro, batch.stop))
        made.append(batch_changes(model, graph, work, part))
        work.apply(made[-1], part.stop)
    nodes = np.concatenate([each.nodes for each in made])
    order = np.repeat(np.arange(len(made)), [len(each.nodes) for each in made])
    by_node = np.lexsort((order, nodes))
    at = torch.from_numpy(by_node)
    fields = {name: torch.cat([each.fields[name] for each in made])[at] for name in made[0].fields}
    versions = Versions(state, nodes[by_node], order[by_node], fields, len(made))
    last = versions.last()
    event = np.concatenate([each.event for each in made])[by_node]
    final = {name: field[torch.from_numpy(last)] for name, field in fields.items()}
    return versions, Changes(versions.nodes[last], event[last], final)
