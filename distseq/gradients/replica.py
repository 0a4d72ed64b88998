"""A replica of the state of memory of one learner: of a temporal model, before and after each of its batches."""

from collections import deque
from collections.abc import Callable

import numpy as np

from distseq.cluster.carried import Carried, Fetch
from distseq.cluster.errors import StateError
from distseq.models.temporal import Graph, Prepared, State, TemporalModel, changes
from distseq.models.temporal.epochs import Epochs
from distseq.models.temporal.packing import unpacked
from distseq.models.temporal.state import Changes

# Batches that a replica can go back, and forth again, without computing anything. Late copies of rows and gradient checks read
# states of a few jobs ago.
LOG = 8


class Replica:
    """The state of one number, changed in place when it moves to another.

    model: its parameters are those that `load` was last called with. load: puts a vector of parameters (P,) into the model.
    Numbers of states are those of `epochs`.
    """

    def __init__(
        self, model: TemporalModel, graph: Graph, epochs: Epochs, load: Callable[[np.ndarray], object]
    ) -> None:
        self._model, self._graph, self.epochs, self._load = model, graph, epochs, load
        self.forget()

    def forget(self) -> None:
        """Has no state any more but the empty one of the first epoch."""
        self.state, self.version = self._model.state(self._graph), 0
        # What the latest batches have changed: (before, after), so that a state can be put back. `_undone` of them are put back.
        self._log: deque[tuple[Changes, Changes]] = deque(maxlen=LOG)
        self._undone = 0
        self._ended: tuple[int, State] | None = None  # the latest state of an epoch's end, and its number

    def at(self, version: int) -> State | None:
        """The state of this number, if it is at hand; the replica is there then. None if it is not."""
        if self._ended is not None and self._ended[0] == version != self.version:
            return self._ended[1]
        first = self.version - (len(self._log) - self._undone)
        if not first <= version <= self.version + self._undone:
            if not self.epochs.is_empty(version):
                return None
            self._begin(version)
        while self.version > version:
            self._undone += 1
            self.version -= 1
            before, _ = self._log[-self._undone]
            self.state.apply(before, self.epochs.position(self.version))
        while self.version < version:
            _, after = self._log[-self._undone]
            self._undone -= 1
            self.version += 1
            self.state.apply(after, self.epochs.position(self.version))
        return self.state

    def _begin(self, version: int) -> None:
        """An epoch begins: memory is empty."""
        if self.version + self._undone == version - 1:
            self.at(version - 1)
            self._ended = (version - 1, self.state)
        self.state, self.version, self._undone = self._model.state(self._graph), version, 0
        self._log.clear()

    def advance(self, prepared: Prepared | None = None) -> None:
        """Goes on by one batch, under the parameters that the model holds; `prepared`, of that batch, saves a scan."""
        if self._undone:
            self.at(self.version + 1)
            return
        batch = self.epochs.slice_of(self.epochs.step_from(self.version))
        after = changes(self._model, self._graph, self.state, batch, prepared)
        self._log.append((self.state.apply(after, batch.stop), after))
        self.version += 1

    def reach(self, carried: Carried) -> State:
        """The state that a payload names, from what is at hand, else from the payload; compared with its digest.

        StateError if they differ: then this replica forgets what it has. ValueError when the job is over.
        """
        state = self.at(carried.version)
        if state is None:
            if not carried.since <= self.version < carried.version:
                self.load(carried.since, carried.snapshot)
            self.at(min(self.version + self._undone, carried.version))
            while self.version < carried.version:
                self._load(_fetched(carried.past[self.version - carried.since]))
                self.advance()
            state = self.state
        if state.digest() != carried.digest:
            self.forget()
            raise StateError(
                f"the state of memory of number {carried.version} on this host differs from that of the driver"
            )
        return state

    def load(self, version: int, snapshot: Fetch | None) -> None:
        """Takes a packed state, None = the empty one, as that of this number."""
        vector = None if snapshot is None else _fetched(snapshot)
        empty = self._model.state(self._graph)
        try:
            self.state = (
                empty if vector is None else unpacked(vector, len(empty), self._model.options, self._model.dtype)
            )
        except ValueError as error:
            raise StateError(f"the state of memory that was sent is none: {error}") from None
        self.version, self._undone = version, 0
        self._log.clear()

    def take(self, vector: np.ndarray) -> None:
        """Puts parameters (P,) into the model."""
        self._load(vector)


def _fetched(fetch: Fetch) -> np.ndarray:
    vector = fetch()
    if vector is None:
        raise ValueError("the job is over")
    return vector
