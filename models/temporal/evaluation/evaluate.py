"""Scores of the events of a stream under constant parameters: a pure function of model, state and protocol, in parts.

Each batch is scored from the state before it, as a whole, whichever of its events are asked for: products of other sizes would
round differently. So the rows of parts, computed on copies of one state anywhere, are those of one pass bit for bit.
Shapes: b events of a batch, P asked events, K candidates, C columns.
"""

import numpy as np
import torch

from distseq.models.links.ranking import ranks
from distseq.models.temporal.evaluation.candidates import Candidates
from distseq.models.temporal.evaluation.protocol import Protocol
from distseq.models.temporal.evaluation.view import fitted, in_mode
from distseq.models.temporal.graph import Graph
from distseq.models.temporal.layers.heads import LinkHead
from distseq.models.temporal.model import TemporalModel
from distseq.models.temporal.modes import changes, class_logits, scores
from distseq.models.temporal.prepared import Prepared, prepare
from distseq.models.temporal.state import State
from distseq.models.temporal.threads import one_thread

TRUE, OTHER, RANK = 0, 1, 2  # columns of links
# Pairs of an event and a candidate that are scored at once: their arrays take some 100 bytes and 10 neighbors each.
PAIRS = 50_000


class Evaluation:
    """A model's way through a range of events, in batches that begin with the range, scoring those that are asked for.

    state: the one before the range, whose fields are changed in place: keep a copy. events: the range to be streamed over, of
    which those of `candidates.scored` can be asked for, or all for a model that predicts classes. Dropout is never applied.
    ValueError if the state does not end where the range begins, or for a mode that does not fit the model.

    The columns of rows of links are the logit of the true destination, that of one random destination, and the rank of the true
    one among its candidates, 1 + (above + at least as high) / 2, or 0 where it is not ranked; those of classes are the logits.

    >>> from distseq.models.data.events import EventStream
    >>> stream = EventStream(np.array([0, 1, 0, 1]), np.array([2, 3, 2, 3]), np.arange(4))
    >>> graph, model = Graph(stream), TemporalModel("jodie", width=4, time_width=2)
    >>> protocol = Protocol(batch=2, negatives=3)
    >>> evaluation = Evaluation(model, graph, model.state(graph), range(4), protocol, Candidates(stream, range(2, 4), protocol))
    >>> evaluation.rows(np.array([2, 3])).shape, evaluation.finish().position
    ((2, 3), 4)
    """

    def __init__(
        self,
        model: TemporalModel,
        graph: Graph,
        state: State,
        events: range,
        protocol: Protocol,
        candidates: Candidates | None = None,
    ) -> None:
        if state.position != events.start:
            raise ValueError(
                f"evaluation: the state includes {state.position} events, so the range begins there: got {events}"
            )
        if isinstance(model.head, LinkHead) and candidates is None:
            raise ValueError("evaluation: a model of links needs candidates")
        self.model = in_mode(model, protocol)
        self.state = fitted(state, self.model)
        self._graph, self._events, self._size, self._candidates = graph, events, protocol.batch, candidates
        # Of the batch at the state's position, once it has been scored.
        self._prepared: Prepared | None = None
        self._rows: np.ndarray | None = None

    @property
    def scored(self) -> range:
        """The events that can be asked for."""
        return self._events if self._candidates is None else self._candidates.scored

    @property
    def columns(self) -> int:
        """C: 3 for links, the number of classes otherwise."""
        return 3 if isinstance(self.model.head, LinkHead) else self.model.options.classes

    @one_thread()
    @torch.no_grad()
    def rows(self, events: np.ndarray) -> np.ndarray:
        """(P, C) float64 of sorted events (P,).

        ValueError, naming the first, for an event that is not in `scored` and the range, comes before the batch that was
        reached, or is out of order.
        """
        self._check(events)
        found = np.empty((len(events), self.columns))
        done = 0
        while done < len(events):
            self._advance(int(events[done]))
            batch = self._batch()
            until = int(np.searchsorted(events, batch.stop))
            if self._rows is None:
                self._prepared = prepare(self.model, self._graph, self.state, batch)
                self._rows = self._scores(self._prepared)
            found[done:until] = self._rows[events[done:until] - batch.start]
            done = until
        return found

    @one_thread()
    @torch.no_grad()
    def finish(self) -> State:
        """The state after all events of the range."""
        self._advance(self._events.stop)
        return self.state

    def _check(self, events: np.ndarray) -> None:
        first, stop = max(self.state.position, self.scored.start), min(self._events.stop, self.scored.stop)
        wrong = (events < first) | (events >= stop) | (np.diff(events, prepend=-1) < 0)
        if wrong.any():
            raise ValueError(
                f"evaluation: events must be sorted and within {first} .. {stop - 1}: got {events[wrong][0]}"
            )

    def _batch(self) -> slice:
        return slice(self.state.position, min(self.state.position + self._size, self._events.stop))

    def _advance(self, event: int) -> None:
        """Moves the state to the beginning of the batch of an event, or to the end of the range."""
        while (batch := self._batch()).start < batch.stop <= event:
            self.state.apply(changes(self.model, self._graph, self.state, batch, self._prepared), batch.stop)
            self._prepared = self._rows = None

    def _scores(self, prepared: Prepared) -> np.ndarray:
        """(b, C); zeros for events that cannot be asked for."""
        batch, candidates = prepared.batch, self._candidates
        if not isinstance(self.model.head, LinkHead):
            return class_logits(self.model, prepared, np.arange(batch.start, batch.stop)).double().numpy()
        assert candidates is not None
        rows = np.zeros((batch.stop - batch.start, 3))
        events = np.arange(max(batch.start, self.scored.start), min(batch.stop, self.scored.stop))
        ranked = candidates.ranked(events)
        for chosen, width in ((events[ranked], candidates.width), (events[~ranked], 0)):
            step = max(1, PAIRS // (2 + width))
            for cut in range(0, len(chosen), step):
                some = chosen[cut : cut + step]
                against = candidates.against(some) if width else np.empty((len(some), 0), np.int64)
                rows[some - batch.start] = self._links(prepared, some, candidates.paired(some), against)
        return rows

    def _links(self, prepared: Prepared, events: np.ndarray, paired: np.ndarray, against: np.ndarray) -> np.ndarray:
        """(P, 3) of events with their one negative (P,) and candidates (P, K), -1 where there is none."""
        own, shown = self._graph.dst[events], against >= 0
        # Where there is no candidate the true destination is scored again, at no cost, and not counted.
        asked = np.concatenate([own[:, None], paired[:, None], np.where(shown, against, own[:, None])], 1)
        logits = scores(self.model, prepared, events, self._graph.src[events], asked).double().numpy()
        rank = ranks(logits[:, TRUE], logits[:, 2:], shown) if against.shape[1] else np.zeros(len(events))
        return np.stack([logits[:, TRUE], logits[:, OTHER], rank], 1)
