"""The memory of a temporal model on a host: the state that the rows of a job read, and its advance in idle time."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from distseq.cluster.errors import StateError
from distseq.cluster.pool import Payload
from distseq.cluster.system.memory import available_memory
from distseq.gradients.replica import Replica
from distseq.gradients.stream_evaluation import StreamEvaluation
from distseq.models.data.events.dataset import Events
from distseq.models.data.events.stream import EventStream
from distseq.models.temporal import Draws, Graph, Prepared, TemporalModel, prepare, state_bytes
from distseq.models.temporal.epochs import Epochs
from distseq.models.temporal.evaluation import Evaluation
from distseq.models.temporal.modes import event_losses

_GRAPHS: WeakKeyDictionary[EventStream, dict[int, Graph]] = WeakKeyDictionary()


def graph_of(events: Events) -> Graph:
    """The stream with its index of neighbors, of which this process holds one."""
    graphs, training = _GRAPHS.setdefault(events.stream, {}), events.split.first_val
    if training not in graphs:
        graphs[training] = Graph(events.stream, training)
    return graphs[training]


@dataclass(frozen=True, eq=False)
class BatchPart:
    """Some events of a prepared batch."""

    prepared: Prepared
    events: np.ndarray

    def losses(self, model: TemporalModel) -> Tensor:
        """(P,) the losses of these events."""
        return event_losses(model, self.prepared, self.events)


class HostMemory:
    """The replica of one learner, with the batch that it was prepared for last.

    load: puts a vector of parameters into the model.
    """

    def __init__(self, model: TemporalModel, events: Events, load: Callable[[np.ndarray], object]) -> None:
        self._model, self._events, self._load = model, events, load
        self.graph = graph_of(events)
        self._replica: Replica | None = None
        self._prepared: tuple[tuple[int, int], Prepared] | None = None
        self._next: tuple[int, np.ndarray] | None = None  # the latest state that rows have read, and parameters
        self._way: tuple[tuple[int, int], Evaluation] | None = None  # of the evaluation that is in progress

    def replica(self, batch: int) -> Replica:
        """The replica, of a stream that is cut into batches of so many events."""
        epochs = Epochs(len(self._events), batch)
        if self._replica is None or self._replica.epochs != epochs:
            self._replica = Replica(self._model, self.graph, epochs, self._load)
        return self._replica

    def forget(self) -> None:
        """Drops all that it has."""
        self._replica = self._prepared = self._next = self._way = None

    def part(self, payload: Payload, ids: np.ndarray) -> BatchPart:
        """The part of events `ids` of a job, whose parameters the model holds when this returns.

        StateError where the state that it reads cannot be had.
        """
        carried, key = payload.carried, (payload.job, payload.version)
        assert carried is not None, "a temporal model's job names the state that its rows read"
        replica = self.replica(carried.batch)
        # A late copy of a row: the state may have gone on in idle time, and is put back.
        known = self._prepared is not None and self._prepared[0] == key
        if not known or replica.at(carried.version) is None:
            state = replica.reach(carried)
            self._load(payload.parameters)
            draws = Draws(payload.seed, replica.epochs.epoch_of(payload.step))
            batch = replica.epochs.slice_of(payload.step)
            self._prepared = (key, prepare(self._model, self.graph, state, batch, draws))
            self._next = (carried.version, payload.parameters)
        assert self._prepared is not None
        return BatchPart(self._prepared[1], ids)

    def evaluated(
        self, evaluation: StreamEvaluation, payload: Payload, ids: np.ndarray, weights: np.ndarray
    ) -> np.ndarray:
        """The row of batches `ids`, sorted, of an evaluation, whose parameters the model holds when this is called.

        StateError where the state that was sent is damaged.
        """
        carried, key = payload.carried, (payload.job, payload.version)
        assert carried is not None
        way = None if self._way is None or self._way[0] != key else self._way[1]
        # A host that is given an earlier batch after a later one begins again.
        if len(ids) and (way is None or evaluation.is_past(way, int(ids[0]))):
            own = Replica(self._model, self.graph, Epochs(len(self._events), carried.batch), self._load)
            own.load(carried.version, carried.snapshot)
            if own.state.digest() != carried.digest:
                raise StateError("the state of memory that was sent to be evaluated is damaged")
            way = evaluation.begun(self.graph, own.state)
            self._way = (key, way)
        return evaluation.row(way, ids, weights)

    def idle(self) -> bool:
        """Advances the state by the batch whose rows were computed last; whether there was something to do."""
        replica, waiting = self._replica, self._next
        self._next = None
        if waiting is None or replica is None or replica.version != waiting[0]:
            return False
        self._load(waiting[1])
        with torch.no_grad():
            replica.advance(None if self._prepared is None else self._prepared[1])
        return True


def memory_of(model: Any, data: Any, load: Callable[[np.ndarray], object]) -> HostMemory | None:
    """The memory of a model that carries one. ValueError where a temporal model and its data do not fit."""
    if not isinstance(model, TemporalModel):
        return None
    return HostMemory(model, checked_events(model, data), load)


def checked_events(model: TemporalModel, data: object) -> Events:
    """The events that the model learns from.

    ValueError unless the data are the training events of a stream that it can read, and this machine has room for its memory.
    """
    if not isinstance(data, Events):
        raise ValueError(
            f"a temporal model learns from events, such as data='events:flights': got {type(data).__name__}"
        )
    if data.part != "training":
        raise ValueError(f"a temporal model is trained on the training part of its events: got part={data.part!r}")
    check_room(data.stream.nodes, replica_bytes(model, data), 1)
    model.state(graph_of(data))
    return data


def replica_bytes(model: TemporalModel, events: Events) -> int:
    """Bytes of one replica of a learner's memory."""
    return state_bytes(events.stream.nodes, model.options, model.dtype)


def check_room(nodes: int, size: int, replicas: int) -> None:
    """ValueError when so many replicas of `size` bytes do not fit into what is left of this machine's memory."""
    left = available_memory()
    if size * replicas > left:
        raise ValueError(
            f"the memory of {nodes:,} nodes takes {size:,} bytes, and {replicas} replica{'s' * (replicas > 1)} of it on this "
            f"machine {size * replicas:,}, but {left:,} are left: memory is replicated on every host, so take fewer hosts, a "
            "smaller width or fewer nodes"
        )
