"""How a temporal learner is evaluated: batch after batch of a part of its stream, on whichever host has the turn.

Shapes: N evaluated events, C columns of scores (distseq.models.temporal.evaluation).
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from distseq.models.data.events.dataset import Events
from distseq.models.links.new_nodes import new_node_events
from distseq.models.temporal import Graph, State, TemporalModel
from distseq.models.temporal.evaluation import (
    Candidates,
    Evaluation,
    Protocol,
    baseline_figures,
    described,
    figures,
    in_mode,
)
from distseq.models.temporal.layers.heads import LinkHead

# By the fingerprint of the evaluated events, which covers stream, split and protocol, and by the events that are scored at once.
_BASELINES: dict[tuple[str, int], dict[str, dict[str, float]]] = {}


class StreamEvaluation:
    """The evaluation of a model on the test events, or the validation events, of the stream that it learns from.

    The samples of its jobs are the batches of these events; a row is (N C,), zeros but for the events of its batches. ValueError
    for another stream, events before the end of training, or options that do not fit.
    """

    def __init__(self, model: TemporalModel, training: Events, events: Any) -> None:
        if not isinstance(events, Events) or events.stream.fingerprint != training.stream.fingerprint:
            raise ValueError("a temporal model is evaluated on a later part of the stream that it learns from")
        # What names no part is read as its training part, as for data to train on.
        events = events.other("test", **events.options) if events.part == "training" else events
        if events.range.start < training.range.stop:
            raise ValueError(
                f"a temporal model is evaluated on events after its training: got events from {events.range.start} on, where "
                f"training ends at {training.range.stop}"
            )
        self._model, self._events, self._training = model, events, training
        try:
            self.protocol = Protocol(**events.options)
        except TypeError as error:
            raise ValueError(f"evaluation: {str(error).partition('__init__() ')[2] or error}") from None
        self._mode = in_mode(model, self.protocol).options.mode
        self.links = isinstance(model.head, LinkHead)
        self._scored = range(events.range.start, events.range.stop)

    @property
    def batches(self) -> int:
        """The samples of an evaluation's job."""
        return -(-len(self._scored) // self.protocol.batch)

    @property
    def columns(self) -> int:
        """C."""
        return 3 if self.links else self._model.options.classes

    @cached_property
    def candidates(self) -> Candidates | None:
        """What each event is compared with; None for a model of classes."""
        if not self.links:
            return None
        published = self._events.source.negatives if self._events.part == "test" else None
        training = self._training.range.stop
        return Candidates(self._events.stream, self._scored, self.protocol, training=training, published=published)

    def begun(self, graph: Graph, state: State) -> Evaluation:
        """The way through the evaluated events, from a state that includes events up to some point before; it is changed."""
        if state.position < self._scored.start:
            before = range(state.position, self._scored.start)
            # Candidates are not asked for.
            state = Evaluation(self._model, graph, state, before, self.protocol, self.candidates).finish()
        return Evaluation(self._model, graph, state, self._scored, self.protocol, self.candidates)

    def is_past(self, way: Evaluation, batch: int) -> bool:
        """Whether the way has gone beyond a batch."""
        return way.state.position > self._scored.start + batch * self.protocol.batch

    def row(self, way: Evaluation | None, ids: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N C,) float64: the scores of batches `ids`, sorted, times their weights; `way` is not needed without any."""
        row, size = np.zeros((len(self._scored), self.columns)), self.protocol.batch
        for batch, weight in zip(ids.tolist(), weights.tolist(), strict=True):
            assert way is not None
            own = slice(batch * size, min((batch + 1) * size, len(row)))
            row[own] = weight * way.rows(np.arange(self._scored.start + own.start, self._scored.start + own.stop))
        return row.reshape(-1)

    def judged(self, total: np.ndarray) -> tuple[float, Mapping[str, float]]:
        """The loss and all figures of the rows of all batches, added up."""
        rows, label = total.reshape(len(self._scored), self.columns), self._events.stream.label
        inside = slice(self._scored.start, self._scored.stop)
        labels = None if self.links or label is None else np.asarray(label[inside], np.int64)
        found = figures(rows, labels=labels, new=self._new)
        return found["loss"], {name: value for name, value in found.items() if name != "loss"}

    @cached_property
    def _new(self) -> np.ndarray:
        stream = self._events.stream
        trained = np.arange(len(stream)) < self._training.range.stop
        return new_node_events(stream.src, stream.dst, trained)[self._scored.start : self._scored.stop]

    @cached_property
    def baselines(self) -> dict[str, dict[str, float]]:
        """The figures of EdgeBank, popularity and counts on the same events and negatives; {} for classes."""
        if self.candidates is None:
            return {}
        # Learners of one stream have them in common.
        batch = 1 if self._mode == "exact" else self.protocol.batch
        key = (self._events.fingerprint, batch)
        if key not in _BASELINES:
            stream, training = self._events.stream, self._training.range.stop
            # They see what the model sees: in mode exact every earlier event.
            _BASELINES[key] = baseline_figures(stream, self.candidates, training, batch=batch, new=self._new)
        return _BASELINES[key]

    @cached_property
    def described(self) -> str:
        """Mode, memory, neighbors, batch, negatives, ties and recurrence, which figures depend on."""
        width = 0 if self.candidates is None else self.candidates.width
        return described(self._model, self._events.stream, self.protocol, width=width)
