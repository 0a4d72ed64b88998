"""Memory-based temporal graph networks, assembled from options.

Equations, for node i with memory s_i, and phi(x) = cos(w x + b):
  message     m_i = [s_i | s_j | f_e | phi(t - t_i)] of an event e = (i, j, t)
  update      s_i <- GRU(m_i, s_i), an RNN, or attention over a mailbox
  embedding   h_i(t) = MLP([attention of [s_i | phi(0)] over [s_j | f_e | phi(t - t')] of recent neighbors | s_i]), the memory s_i
              itself, or its projection (1 + w (t - t_i)) s_i
  link        p = sigmoid(MLP([h_i | h_j])), loss -log p(event) - log(1 - p(random destination))
Shapes: R rows of memory, Q queries, k neighbors, d width.
"""

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from distseq.models.temporal.graph import Graph
from distseq.models.temporal.layers.attention import Attention
from distseq.models.temporal.layers.encoding import TimeEncoding
from distseq.models.temporal.layers.heads import ClassHead, LinkHead
from distseq.models.temporal.layers.updaters import MailboxUpdater, RecurrentUpdater
from distseq.models.temporal.options import options_of
from distseq.models.temporal.state import Fields, State


class Part(Protocol):
    """Some events of a batch, which know the memory that they read."""

    def losses(self, model: "TemporalModel") -> Tensor:
        """(P,) the losses of its events."""
        ...


class TemporalModel(nn.Module):
    """A model of a stream of events between nodes.

    preset: tgn, jodie, dyrep or apan; each of its options can be replaced:
      width, time_width   sizes of memory and of time encodings; features: of messages
      embedding           attention (over `neighbors` recent neighbors, in `heads` heads), identity or projection
      updater             gru, rnn, or mailbox (attention over `slots` mails, which also reach the endpoints' neighbors)
      message             identity, or mlp;  other: memory, or neighbors (of the other endpoint an attention over its neighbors)
      aggregation         of a node's messages in a batch: last, or mean
      time                frozen, slow or learned encoding
      visible             event: neighbors up to the event, t' < t;  batch: neighbors before the batch, one embedding per node
      head                link, or class (of the source, by the events' labels, of `classes`)
      mode                parallel, pres (with gamma, beta, prediction: step or time), replay (with micro) or exact
      dropout             on the weights of attention and in the head, keyed by event
    ValueError, in one line, for an option that is unknown or does not fit another.

    >>> model = TemporalModel("tgn", width=8, time_width=4, mode="replay", micro=50)
    >>> model.options.embedding, model.options.updater
    ('attention', 'gru')
    """

    def __init__(self, preset: str = "tgn", **given: Any) -> None:
        super().__init__()
        self.options = options = options_of(preset, given)
        d, parts = options.width, (options.width, options.features, options.time_width)
        self.time = TimeEncoding(options.time_width, options.time)
        self.updater = MailboxUpdater(options) if options.updater == "mailbox" else RecurrentUpdater(options)
        attends = options.embedding == "attention"
        self.attention = Attention(d, options.time_width, parts, options.heads) if attends else None
        around = options.other == "neighbors"
        self.around = Attention(d, options.time_width, parts, options.heads) if around else None
        # As in JODIE, from a small normal distribution: at the start a projection is close to the identity.
        self.drift = nn.Parameter(torch.randn(d) * d**-0.5) if options.embedding == "projection" else None
        self.head = LinkHead(d) if options.head == "link" else ClassHead(d, options.classes)
        pres = options.mode == "pres"
        self.gamma = nn.Parameter(torch.tensor(options.gamma).logit()) if pres else None

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of parameters and memory."""
        return next(self.parameters()).dtype

    def state(self, graph: Graph) -> State:
        """The state before the first event. ValueError where the stream does not fit the model."""
        if graph.width != self.options.features:
            raise ValueError(
                f"TemporalModel: features={self.options.features}, but the stream's messages have {graph.width}"
            )
        if self.options.head == "class":
            label = graph.label
            if label is None or label.dtype.kind not in "iu":
                raise ValueError("TemporalModel: head='class' needs a stream with whole numbers as labels")
            if label.min() < 0 or label.max() >= self.options.classes:
                raise ValueError(
                    f"TemporalModel: labels must be 0 .. {self.options.classes - 1}: got {label.min()} .. {label.max()}"
                )
        return State.empty(graph.nodes, self.options, self.dtype)

    def per_sample_loss(self, part: "Part") -> tuple[Tensor, Tensor]:
        """(P,) losses of a part's events, and a count of 1 for each, since the last batch of an epoch may be a short one."""
        losses = part.losses(self)
        return losses, torch.ones_like(losses)

    def encode(self, graph: Graph, seconds: Tensor) -> Tensor:
        """phi of time differences (...) int64: (..., time_width)."""
        return self.time(graph.scaled(seconds, self.dtype))

    def zero(self) -> Tensor:
        """phi(0), (time_width,)."""
        return self.time(torch.zeros((), dtype=self.dtype))

    def flush(self, graph: Graph, raw: Fields) -> Tensor:
        """Memory (R, d) after the waiting messages, by the current parameters; in mode "pres" the corrected one."""
        has = waiting(raw)
        if not has.any():
            return raw["memory"]
        partial = not has.all()
        one = {name: field[has] for name, field in raw.items()} if partial else raw
        new = self._mailed(graph, one) if self.options.updater == "mailbox" else self._messaged(graph, one)
        if self.gamma is not None:
            new = self._corrected(graph, one, new)
        return raw["memory"].index_copy(0, has.nonzero().squeeze(1), new) if partial else new

    def _messaged(self, graph: Graph, raw: Fields) -> Tensor:
        assert isinstance(self.updater, RecurrentUpdater)
        events = raw["event"].numpy()
        if self.options.aggregation == "mean":
            return self.updater(raw["memory"], raw["other"], torch.cat([raw["mean_features"], raw["mean_encoding"]], 1))
        rest = self.rest(graph, events, raw["time"] - raw["updated"])
        other = raw["other"]
        if self.around is not None:
            far = graph.src[events] + graph.dst[events] - raw["node"].numpy()
            found = graph.neighbors.before(far, graph.first_simultaneous(events), self.options.neighbors)
            delta = raw["time"][:, None] - torch.from_numpy(found.times)
            parts = (raw["around"], graph.features(found.events, self.dtype), self.encode(graph, delta))
            other = self.around(other, self.zero(), parts, torch.from_numpy(found.valid))
        return self.updater(raw["memory"], other, rest)

    def _mailed(self, graph: Graph, raw: Fields) -> Tensor:
        assert isinstance(self.updater, MailboxUpdater)
        age = self.encode(graph, raw["mail_time"][:, -1:] - raw["mail_time"])
        features = graph.features(raw["mail_event"].numpy(), self.dtype)
        return self.updater(raw["memory"], self.zero(), raw["mail"], features, age, raw["mail_valid"])

    def rest(self, graph: Graph, events: np.ndarray, seconds: Tensor) -> Tensor:
        """[f | phi] (R, F + time_width) of messages of some events, so long after the last update."""
        return torch.cat([graph.features(events, self.dtype), self.encode(graph, seconds)], 1)

    def _corrected(self, graph: Graph, raw: Fields, measured: Tensor) -> Tensor:
        """gamma s + (1 - gamma) (s_prev + tau xi / n), where there is an earlier observation (PRES, eq. 7 and 8)."""
        assert self.gamma is not None
        count = raw["count"][:, None]
        step = raw["xi"] / count.clamp_min(1)
        if self.options.prediction == "time":
            step = step * self.elapsed(graph, raw)
        gamma = torch.sigmoid(self.gamma)
        return torch.where(count > 0, gamma * measured + (1 - gamma) * (raw["memory"] + step), measured)

    def elapsed(self, graph: Graph, raw: Fields) -> Tensor:
        """(R, 1): time from the last update to that by the waiting message, in mean times between two events."""
        return graph.scaled(row_time(raw) - raw["updated"], self.dtype)[:, None]


def waiting(raw: Fields) -> Tensor:
    """(R,) bool: whether a message waits for the row. The newest mail is in the last slot."""
    return raw["mail_valid"][:, -1] if "mail" in raw else raw["valid"]


def row_time(raw: Fields) -> Tensor:
    """(R,) int64: the time of the last event that a row includes once its waiting message is applied."""
    return torch.where(waiting(raw), raw["mail_time"][:, -1] if "mail" in raw else raw["time"], raw["updated"])
