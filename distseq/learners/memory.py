"""The memory of a learner's temporal model, as the driver keeps it: what jobs are sent of it, and what a checkpoint holds.

The driver's replica is the one that decides: a host whose state has another digest is sent the driver's.
"""

from collections.abc import Mapping
from copy import deepcopy

import numpy as np
import torch
from torch import Tensor

from distseq.cluster.carried import Carried, Held
from distseq.gradients.memory import graph_of, replica_bytes
from distseq.gradients.problem import load_vector, trained
from distseq.gradients.replica import Replica
from distseq.models.data.events.dataset import Events
from distseq.models.temporal import State, TemporalModel
from distseq.models.temporal.epochs import Epochs
from distseq.models.temporal.packing import packed

# Jobs between two snapshots that are sent: a snapshot, a copy of all memory, costs each job an eighth of it, and a host that was
# left behind advances by at most so many batches.
RING = 8
# Jobs of one learner that were sent again because a host's state differed, after which every job is sent with its state.
PATIENCE = 3


class LearnerMemory:
    """The state of memory before and after each job of one learner.

    model: of the learner, which the events fit; only its structure is used.
    """

    def __init__(self, model: TemporalModel, events: Events, batch: int) -> None:
        self.epochs, self._events = Epochs(len(events), batch), events
        # A model of its own: that of the learner has the parameters of the next step already when memory is advanced.
        self._model = deepcopy(model)
        own = trained(self._model)
        self._replica = Replica(self._model, graph_of(events), self.epochs, lambda vector: load_vector(own, vector))
        # Number of a state -> parameters of the job that reads it, from that of the snapshot on.
        self._past: dict[int, Held] = {}
        self._since, self._snapshot = 0, self._held(0)
        self._latest = 0  # the latest state that a job reads
        self.done = 0  # jobs that were applied
        self.sent_again = 0

    @property
    def nodes(self) -> int:
        """Nodes of the stream."""
        return self._events.stream.nodes

    @property
    def bytes(self) -> int:
        """Of one replica."""
        return replica_bytes(self._model, self._events)

    def fresh(self, model: TemporalModel) -> "LearnerMemory":
        """That of a copy of the learner, before its first job."""
        return LearnerMemory(model, self._events, self.epochs.batch)

    def _state(self, version: int) -> State:
        state = self._replica.at(version)
        if state is None:
            while self._replica.version < version:
                self._advance()
            state = self._replica.at(version)
        assert state is not None, "states are asked for in order, but for the latest ones"
        return state

    def _advance(self) -> None:
        self._replica.take(self._past[self._replica.version].vector)
        self._replica.advance()

    def _held(self, version: int) -> Held | None:
        return None if self.epochs.is_empty(version) else Held(packed(self._state(version)))

    def carried(self, step: int, parameters: np.ndarray) -> Carried:
        """The state that the job of a step reads, whose parameters (P,) are remembered."""
        version = self.epochs.before(step)
        state = self._state(version)
        if version > self._latest:
            self._latest = version
            if self.epochs.is_empty(version) or version - self._since >= RING:
                self._since, self._snapshot = version, self._held(version)
                self._past.clear()
        self._past.setdefault(version, Held(parameters))
        if self.sent_again >= PATIENCE:
            return self.whole(step)
        past = tuple(self._past[v] for v in range(self._since, version))
        return Carried(self.epochs.batch, version, state.digest(), self._since, self._snapshot, past)

    def whole(self, step: int) -> Carried:
        """The state that the job of a step reads, all of it in the payload."""
        return self._whole(self.epochs.before(step))

    def evaluated(self, done: int) -> Carried:
        """The state after so many jobs, all of it in the payload."""
        return self._whole(self.epochs.after(done))

    def _whole(self, version: int) -> Carried:
        return Carried(self.epochs.batch, version, self._state(version).digest(), version, self._held(version), ())

    def prepare_next(self) -> None:
        """Advances the state by the batch of the job that was opened last, for which there is time while hosts compute it."""
        if self._replica.version == self._latest and self._latest in self._past:
            self._advance()

    def snapshot(self) -> dict[str, Tensor]:
        """The state after the jobs that were applied, for a checkpoint."""
        return self._state(self.epochs.after(self.done)).to_dict() | {"done": torch.tensor(self.done)}

    def restore(self, saved: Mapping[str, Tensor]) -> None:
        """Takes a state that was saved. ValueError, with nothing changed, when it is not one of this model and stream."""
        fields = {name: tensor for name, tensor in saved.items() if name != "done"}
        state = State.from_dict(fields, len(self._replica.state), self._model.options, self._model.dtype)
        done = int(saved["done"])
        version = self.epochs.after(done)
        self._replica.load(version, Held(packed(state)))
        self.done = done
        self._past.clear()
        self._since = self._latest = version
        self._snapshot = self._held(version)
