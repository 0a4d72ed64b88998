"""The temporal model event by event and node by node, from the equations: what every vectorized step is compared with.

A mode is how many events read one state: all of the batch (parallel, pres), m (replay) or one (exact).
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, layer_norm

from distseq.models.temporal import Draws, Graph, TemporalModel


@dataclass
class Node:
    """One node: memory, its time, the messages that wait (the last, those of a mean, or the slots), and trackers."""

    memory: Tensor
    updated: int = 0
    mails: list[dict[str, Any]] = field(default_factory=list)
    xi: Tensor | None = None
    count: int = 0

    @property
    def time(self) -> int:
        return self.mails[-1]["time"] if self.mails else self.updated


class Reference:
    """A model at work on a stream, one event at a time."""

    def __init__(self, model: TemporalModel, graph: Graph, draws: Draws) -> None:
        self.model, self.graph, self.draws, self.options = model, graph, draws, model.options
        self.nodes = [Node(torch.zeros(self.options.width, dtype=model.dtype)) for _ in range(graph.nodes)]

    def batch(self, start: int, stop: int) -> Tensor:
        """The loss of a batch, after which the state is the one behind it."""
        micro = {"replay": self.options.micro, "exact": 1}.get(self.options.mode, stop - start)
        total = torch.zeros((), dtype=self.model.dtype)
        for first in range(start, stop, micro):
            events = range(first, min(first + micro, stop))
            total = total + sum(self.loss(e, first) for e in events) / (stop - start)
            if self.options.mode == "pres":
                total = total + self.coherence(events)
            self.advance(events)
        return total

    # What an event costs.

    def loss(self, e: int, first: int) -> Tensor:
        src, dst, head = int(self.graph.src[e]), int(self.graph.dst[e]), self.model.head
        h = self.embed(src, e, first)
        if self.options.head == "class":
            hidden = torch.relu(head.enter.weight @ h + head.enter.bias) * self.kept((e,), 1, self.options.width)
            return -(head.out.weight @ hidden + head.out.bias).log_softmax(0)[int(self.graph.label[e])]
        low, high = self.graph.destinations
        false = int(self.draws.integers(np.array([e]), 0, low, high)[0])
        true = self.score(h, self.embed(dst, e, first), self.kept((e,), 1, self.options.width))
        other = self.score(h, self.embed(false, e, first), self.kept((e,), 2, self.options.width))
        return -torch.log(torch.sigmoid(true)) - torch.log(1 - torch.sigmoid(other))

    def score(self, source: Tensor, destination: Tensor, kept: Tensor | float = 1.0) -> Tensor:
        head = self.model.head
        hidden = torch.relu(head.enter.weight @ torch.cat([source, destination]) + head.enter.bias) * kept
        return head.out.weight[0] @ hidden + head.out.bias[0]

    def kept(self, keys: tuple[int, ...], slot: int, width: int) -> Tensor | float:
        if not self.model.training:
            return 1.0
        arrays = tuple(np.array([key]) for key in keys)
        return self.draws.kept(arrays, slot, width, self.options.dropout, self.model.dtype)[0]

    def coherence(self, events: range) -> Tensor:
        ends = {int(end) for e in events for end in (self.graph.src[e], self.graph.dst[e])}
        total = torch.zeros((), dtype=self.model.dtype)
        for v in sorted(ends):
            prev = self.nodes[v].memory
            if bool((prev != 0).any()):
                total = total + 1 - cosine_similarity(prev, self.row(v), dim=0)
        return self.options.beta * total / len(ends)

    # What is read of a node.

    def phi(self, seconds: int) -> Tensor:
        x, time = torch.tensor(seconds / self.graph.interval, dtype=self.model.dtype), self.model.time
        if time.kind == "frozen":
            return torch.cos(x * time.start)
        if time.kind == "learned":
            return torch.cos(x * time.w + time.b)
        return torch.cos(x * time.start * (1 + 0.01 * time.w) + 0.01 * time.b)

    def feature(self, e: int) -> Tensor:
        return self.graph.features(np.array([e]), self.model.dtype)[0]

    def row(self, v: int) -> Tensor:
        """Memory after the messages that wait."""
        node, options = self.nodes[v], self.options
        if not node.mails:
            return node.memory
        mailed = options.updater == "mailbox"
        measured = self.attended_mail(node) if mailed else self.cell(self.message(node), node.memory)
        if options.mode == "pres" and node.count:
            step = node.xi / node.count
            if options.prediction == "time":
                step = step * (node.time - node.updated) / self.graph.interval
            gamma = torch.sigmoid(self.model.gamma)
            return gamma * measured + (1 - gamma) * (node.memory + step)
        return measured

    def message(self, node: Node) -> Tensor:
        if self.options.aggregation == "mean":
            raw = torch.stack([mail["raw"] for mail in node.mails]).mean(0)
            m = torch.cat([node.memory, raw])
        else:
            mail = node.mails[-1]
            other = mail["other"]
            if self.options.other == "neighbors":
                other = self.attention(self.model.around, other, mail["around"], mail["time"])
            m = torch.cat([node.memory, other, self.feature(mail["event"]), self.phi(mail["time"] - node.updated)])
        updater = self.model.updater
        if self.options.message == "mlp":
            m = torch.relu(updater.enter.weight @ m + updater.enter.bias)
            m = updater.second.weight @ m + updater.second.bias
        return m

    def cell(self, m: Tensor, h: Tensor) -> Tensor:
        updater, d = self.model.updater, self.options.width
        last = updater.gates if self.options.message == "mlp" else updater.enter
        x = (last.weight @ m + last.bias).view(-1, d)
        product = [h @ r for r in updater.recurrent[0]]
        if self.options.updater == "rnn":
            return torch.tanh(x[0] + product[0])
        r, z = torch.sigmoid(x[0] + product[0]), torch.sigmoid(x[1] + product[1])
        n = torch.tanh(x[2] + r * (product[2] + updater.inner[0]))
        return (1 - z) * n + z * h

    def attended_mail(self, node: Node) -> Tensor:
        keys = [
            torch.cat([mail["both"], self.feature(mail["event"]), self.phi(node.mails[-1]["time"] - mail["time"])])
            for mail in node.mails
        ]
        out = self.attend(self.model.updater.attention, node.memory, keys, [1.0] * len(keys))
        norm = self.model.updater.norm
        return layer_norm(out, (self.options.width,), norm.weight, norm.bias, norm.eps)

    def attend(self, attention: Any, own: Tensor, keys: list[Tensor], kept: list[Any]) -> Tensor:
        """As published: each key and value projected. kept: for each key a factor, or one for each head."""
        heads, query = attention.heads, attention.query.weight @ torch.cat([own, self.phi(0)])
        attended = torch.zeros_like(own).view(heads, -1)
        if keys:
            k = torch.stack([attention.key @ x for x in keys]).view(len(keys), heads, -1)
            v = torch.stack([attention.value @ x for x in keys]).view(len(keys), heads, -1)
            weight = torch.einsum("khd,hd->kh", k, query.view(heads, -1)) * attention.size**-0.5
            factors = torch.stack([torch.as_tensor(one, dtype=own.dtype).expand(heads) for one in kept])
            attended = torch.einsum("kh,khd->hd", weight.softmax(0) * factors, v)
        hidden = torch.relu(attention.merge.weight @ torch.cat([attended.flatten(), own]) + attention.merge.bias)
        return attention.out.weight @ hidden + attention.out.bias

    def attention(
        self, attention: Any, own: Tensor, near: list[tuple[Tensor, int]], time: int, kept: Any = None
    ) -> Tensor:
        keys = [torch.cat([row, self.feature(e), self.phi(time - int(self.graph.time[e]))]) for row, e in near]
        return self.attend(attention, own, keys, [1.0] * len(keys) if kept is None else kept)

    def neighbors(self, v: int, time: int, below: int | None = None) -> list[tuple[int, int]]:
        """(neighbor, event) of the k last events of v before a time, or before an event; the most recent first."""
        found = []
        for e in reversed(range(self.graph.events)):
            past = self.graph.time[e] < time if below is None else e < below
            if past and v in (self.graph.src[e], self.graph.dst[e]):
                found.append((int(self.graph.src[e] + self.graph.dst[e] - v), e))
        return found[: self.options.neighbors]

    def embed(self, v: int, e: int, first: int) -> Tensor:
        whole = self.options.visible == "batch"
        time = int(self.graph.time[first if whole else e])
        row = self.row(v)
        if self.options.embedding == "identity":
            return row
        if self.options.embedding == "projection":
            pace = (time - self.nodes[v].time) / self.graph.interval * 2 / self.graph.nodes
            return row * (1 + pace * self.model.drift)
        near = self.neighbors(v, time, first if whole else None)
        # The event that stands for the time: the first of the micro-batch with it.
        stands = first if whole else next(one for one in range(first, e + 1) if self.graph.time[one] == time)
        kept = self.kept((v, stands), 3, self.options.heads * self.options.neighbors)
        factors = None if isinstance(kept, float) else list(kept.view(self.options.heads, -1).T[: len(near)])
        return self.attention(self.model.attention, row, [(self.row(j), e) for j, e in near], time, factors)

    # What an event leaves behind.

    @torch.no_grad()
    def advance(self, events: range) -> None:
        src, dst = self.graph.src, self.graph.dst
        # All messages use the memory before the first of the events.
        rows = [self.row(v) for v in range(self.graph.nodes)]
        for v in sorted({int(end) for e in events for end in (src[e], dst[e])}):
            self.persist(self.nodes[v], rows[v])
        arrived: dict[int, list[dict[str, Any]]] = {}
        for e in events:
            time, ends = int(self.graph.time[e]), (int(src[e]), int(dst[e]))
            for own, far in (ends, ends[::-1]):
                mail: dict[str, Any] = {
                    "event": e,
                    "time": time,
                    "other": rows[far],
                    "both": torch.cat([rows[v] for v in ends]),
                }
                if self.options.other == "neighbors":
                    mail["around"] = [(rows[j], one) for j, one in self.neighbors(far, time)]
                encoded = self.phi(time - self.nodes[own].updated)
                mail["raw"] = torch.cat([rows[far], self.feature(e), encoded])
                arrived.setdefault(own, []).append(mail)
            if self.options.updater == "mailbox":
                near = {j for end in ends for j, _ in self.neighbors(end, time)} | set(ends)
                for j in near:
                    self.nodes[j].mails = [*self.nodes[j].mails, mail][-self.options.slots :]
        if self.options.updater != "mailbox":
            for v, mails in arrived.items():
                self.nodes[v].mails = mails if self.options.aggregation == "mean" else mails[-1:]

    def persist(self, node: Node, row: Tensor) -> None:
        """Memory becomes the row that was read, and the trackers see how far it moved."""
        if self.options.mode == "pres" and node.mails:
            elapsed = (node.time - node.updated) / self.graph.interval
            if self.options.prediction == "step" or elapsed > 0:
                moved = (row - node.memory) / (1.0 if self.options.prediction == "step" else elapsed)
                node.xi = moved if node.xi is None else node.xi + moved
                node.count += 1
        node.memory, node.updated = row, node.time
