"""make bench-temporal-peer: events per CPU-second of a step of TGN, beside PyTorch Geometric's; pip install 'distseq[bench]'.

TGN at its published size (width 100, 172 random message features, 10 neighbors, dropout .1), one thread, one negative per event,
Adam. A step is everything that a batch costs: neighbors, forward, backward, optimizer, memory and the insertion of its events.
PyG's does not see neighbors inside the batch, so ours is measured without them (visible="batch") and with them, and in mode
exact, which gives each event the memory of batch size 1. Then the scoring of 200 events against 100 destinations each. Medians
of repetitions in turn.
"""

import os
import statistics
import sys
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from temporal_step import FEATURES, stream_of
from torch import Tensor, nn

from distseq.cluster.system.cpu_time import timed
from distseq.models.data.events import EventStream
from distseq.models.temporal import Draws, Graph, TemporalModel, changes, part_loss, prepare, scores

try:
    from torch_geometric.nn import TGNMemory, TransformerConv
    from torch_geometric.nn.models.tgn import IdentityMessage, LastAggregator, LastNeighborLoader
except ModuleNotFoundError:
    print("error: PyTorch Geometric is not installed: python -m pip install torch_geometric", file=sys.stderr)
    sys.exit(2)

WIDTH, NEIGHBORS, NEGATIVES = 100, 10, 100
SIZES, PLACES, STEPS = (200, 800, 3200), {"start": 0, "middle": 30_000}, 5


class Peer:
    """A TGN of PyTorch Geometric's parts, and its step."""

    def __init__(self, stream: EventStream) -> None:
        torch.manual_seed(0)
        arrays = (stream.src, stream.dst, stream.t - stream.t[0], stream.message)
        self.src, self.dst, self.t, self.message = (torch.from_numpy(np.array(each)) for each in arrays)
        self.first, self.end = stream.destinations
        message = IdentityMessage(FEATURES, WIDTH, WIDTH)
        self.memory = TGNMemory(stream.nodes, FEATURES, WIDTH, WIDTH, message, LastAggregator())
        edges = FEATURES + WIDTH
        self.attention = TransformerConv(WIDTH, WIDTH // 2, heads=2, dropout=0.1, edge_dim=edges)
        self.enter, self.out = nn.Linear(2 * WIDTH, WIDTH), nn.Linear(WIDTH, 1)
        self.loader, self.place = (
            LastNeighborLoader(stream.nodes, NEIGHBORS),
            torch.empty(stream.nodes, dtype=torch.long),
        )
        modules = (self.memory, self.attention, self.enter, self.out)
        self.optimizer = torch.optim.Adam([p for one in modules for p in one.parameters()], 1e-4)

    def embedded(self, nodes: Tensor) -> Tensor:
        """Embeddings of distinct nodes and their neighbors, whose rows `place` tells."""
        nodes, edges, events = self.loader(nodes)
        self.place[nodes] = torch.arange(len(nodes))
        memory, updated = self.memory(nodes)
        age = self.memory.time_enc((updated[edges[0]] - self.t[events]).to(memory.dtype))
        return self.attention(memory, edges, torch.cat([age, self.message[events]], 1))

    def logit(self, one: Tensor, other: Tensor) -> Tensor:
        return self.out(torch.relu(self.enter(torch.cat([one, other], -1)))).squeeze(-1)

    def step(self, batch: slice) -> None:
        src, dst = self.src[batch], self.dst[batch]
        other = torch.randint(self.first, self.end, src.shape)
        self.optimizer.zero_grad()
        h = self.embedded(torch.cat([src, dst, other]).unique())
        true, false = (self.logit(h[self.place[src]], h[self.place[end]]) for end in (dst, other))
        loss = nn.functional.softplus(-true).mean() + nn.functional.softplus(false).mean()
        self.insert(batch)
        loss.backward()
        self.optimizer.step()
        self.memory.detach()

    def insert(self, batch: slice) -> None:
        self.memory.update_state(self.src[batch], self.dst[batch], self.t[batch], self.message[batch])
        self.loader.insert(self.src[batch], self.dst[batch])

    @torch.no_grad()
    def skip(self, stop: int) -> None:
        """Takes in the first events without learning from them."""
        for start in range(0, stop, 500):
            self.insert(slice(start, start + 500))

    @torch.no_grad()
    def evaluate(self) -> None:
        """Enters evaluation mode, in which memory applies its messages once for all nodes, and is only read from then on."""
        self.memory.eval()
        self.attention.eval()

    @torch.no_grad()
    def ranked(self, batch: slice, candidates: np.ndarray) -> None:
        """Scores of each event's candidates, event by event, as TGB's protocol is usually run."""
        for event, own in zip(range(batch.start, batch.stop), torch.from_numpy(candidates), strict=True):
            src = self.src[event : event + 1]
            h = self.embedded(torch.cat([src, own]).unique())
            self.logit(h[self.place[src.expand(len(own))]], h[self.place[own]])


class Ours:
    """The same by distseq, and its step."""

    def __init__(self, stream: EventStream, **options: str) -> None:
        torch.manual_seed(0)
        self.graph = Graph(stream)
        self.model = TemporalModel(
            "tgn", width=WIDTH, time_width=WIDTH, features=FEATURES, neighbors=NEIGHBORS, dropout=0.1, **options
        )
        self.optimizer = torch.optim.Adam([p for p in self.model.parameters() if p.requires_grad], 1e-4)
        self.state = self.model.state(self.graph)

    def step(self, batch: slice) -> None:
        prepared = prepare(self.model, self.graph, self.state, batch, Draws(0))
        self.optimizer.zero_grad()
        part_loss(self.model, prepared, np.arange(batch.start, batch.stop)).backward()
        self.state.apply(changes(self.model, self.graph, self.state, batch, prepared), batch.stop)
        self.optimizer.step()

    def skip(self, stop: int) -> None:
        for start in range(0, stop, 500):
            batch = slice(start, start + 500)
            self.state.apply(changes(self.model, self.graph, self.state, batch), batch.stop)

    def evaluate(self) -> None:
        self.model.eval()

    def ranked(self, batch: slice, candidates: np.ndarray) -> None:
        prepared = prepare(self.model, self.graph, self.state, batch)
        events = np.arange(batch.start, batch.stop)
        scores(self.model, prepared, events, self.graph.src[batch], candidates)


KINDS = {"ours, visible=batch": {"visible": "batch"}, "ours, visible=event": {}, "ours, exact": {"mode": "exact"}}


def medians(stream: EventStream, start: int, size: int) -> dict[str, float]:
    """CPU seconds of a step of each."""
    contenders = {"PyG": Peer(stream), **{name: Ours(stream, **options) for name, options in KINDS.items()}}
    for one in contenders.values():
        one.skip(start)
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for k in range(STEPS + 1):
        batch = slice(start + k * size, start + (k + 1) * size)
        for name, one in contenders.items():
            found[name].append(timed(_step(one.step, batch))[1])
    # The first one allocates.
    return {name: statistics.median(times[1:]) for name, times in found.items()}


def _step(step: Callable[[slice], None], batch: slice) -> Callable[[], None]:
    return lambda: step(batch)


def scoring(stream: EventStream) -> dict[str, float]:
    """CPU seconds of scoring 200 events against their candidates, of each."""
    batch = slice(30_000, 30_200)
    candidates = np.random.default_rng(0).integers(*stream.destinations, (200, 1 + NEGATIVES))
    contenders = {"PyG": Peer(stream), **{name: Ours(stream, **options) for name, options in KINDS.items()}}
    for one in contenders.values():
        one.skip(batch.start)
        one.evaluate()
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(STEPS + 1):
        for name, one in contenders.items():
            found[name].append(timed(lambda one=one: one.ranked(batch, candidates))[1])  # type: ignore[misc]
    return {name: statistics.median(times[1:]) for name, times in found.items()}


def main() -> None:
    torch.set_num_threads(1)
    stream = stream_of(sys.argv[1] if len(sys.argv) > 1 else None)
    print(f"torch {torch.__version__}, one thread, load {os.getloadavg()[0]:.1f}; events per CPU-second, times PyG's")
    print(f"{'at':<8}{'batch':>6}{'PyG':>10}" + "".join(f"{name:>24}" for name in KINDS))
    for place, start in PLACES.items():
        for size in SIZES:
            found = medians(stream, start, size)
            ours = "".join(f"{size / found[name]:>16,.0f}{found['PyG'] / found[name]:>7.2f}x" for name in KINDS)
            print(f"{place:<8}{size:>6}{size / found['PyG']:>10,.0f}{ours}", flush=True)
    seconds = scoring(stream)
    print(f"\n200 events against {NEGATIVES} destinations each, ms: PyG, event by event {1e3 * seconds['PyG']:,.0f}")
    for name in KINDS:
        print(f"  {name} {1e3 * seconds[name]:,.0f}: {seconds['PyG'] / seconds[name]:.1f}x")


if __name__ == "__main__":
    main()
