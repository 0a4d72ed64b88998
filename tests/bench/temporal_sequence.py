"""make bench-temporal-sequence: who predicts the next item where no user takes one twice: graph models, an LSTM and baselines.

    python tests/bench/temporal_sequence.py [SEEDS]

The stream is `sequence` (distseq.models.data.events.generators), like TGB-Seq's: two items in a row tell the category of the
next. 28,000 events train, the last 6,000 are ranked against 100 uniform negatives each. TGN and JODIE train in mode exact with
batches of 200 and Muon, with and without messages that tell the category of an event's own item; an LSTM reads each
user's items in order, without messages. One thread. Checked first: two parts of an evaluation give the rows of one pass.
"""

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from distseq import Muon
from distseq.cluster.system.cpu_time import timed
from distseq.models.data.events import EventStream
from distseq.models.data.events.generators.sequence import sequence
from distseq.models.data.events.split import Split, chronological
from distseq.models.links.ranking import ranks
from distseq.models.temporal import Draws, Graph, TemporalModel, advance, part_loss, prepare
from distseq.models.temporal.evaluation import (
    Candidates,
    Evaluation,
    Protocol,
    baseline_figures,
    described,
    figures,
    parts,
)

FEATURES, WIDTH, BATCH, PROTOCOL = 16, 32, 200, Protocol(negatives=100)
GRAPH_EPOCHS, LSTM_EPOCHS, USERS = 12, 40, 20  # USERS: those of one step of the LSTM
MUON = {"lr": 0.005, "momentum": 0.95, "adam_lr": 1e-3}  # docs/config-file.md, for batches of 200


def graph_model(preset: str, stream: EventStream, split: Split, seed: int) -> np.ndarray:
    """Rows of the test events; memory is carried on from training."""
    torch.manual_seed(seed)
    graph = Graph(stream, split.first_val)
    model = TemporalModel(preset, width=WIDTH, time_width=WIDTH, features=stream.features, mode="exact", dropout=0.0)
    optimizer = Muon(model, **MUON)
    for epoch in range(GRAPH_EPOCHS):
        state, draws = model.state(graph), Draws(seed, epoch)
        for start in range(0, split.first_val, BATCH):
            batch = slice(start, min(start + BATCH, split.first_val))
            prepared = prepare(model, graph, state, batch, draws)
            optimizer.zero_grad()
            part_loss(model, prepared, np.arange(batch.start, batch.stop)).backward()
            state.apply(prepared.after, batch.stop)
            optimizer.step()
    test = range(split.first_test, len(stream))
    seen = range(split.first_val, len(stream))
    evaluation = Evaluation(model, graph, state, seen, PROTOCOL, Candidates(stream, test, PROTOCOL))
    return evaluation.rows(np.array(test))


def sequences(stream: EventStream) -> tuple[np.ndarray, np.ndarray]:
    """(users, T): each user's items in order, and their events, -1 behind the last."""
    users, items = stream.destinations[0], stream.dst - stream.destinations[0]
    order = np.argsort(stream.src, kind="stable")
    count = np.bincount(stream.src, minlength=users)
    place = np.arange(len(stream)) - np.repeat(np.cumsum(count) - count, count)
    item, event = np.full((2, users, count.max()), -1)
    item[stream.src[order], place], event[stream.src[order], place] = items[order], order
    return item, event


class NextItem(nn.Module):
    """Logits (n, items) of the next item at some steps, from an LSTM over the items before; embeddings are tied to the head."""

    def __init__(self, items: int) -> None:
        super().__init__()
        width = 2 * WIDTH
        # The last one is a sign for the beginning.
        self.items = nn.Embedding(items + 1, width)
        nn.init.normal_(self.items.weight, std=width**-0.5)
        self.lstm, self.drop = nn.LSTM(width, width, batch_first=True), nn.Dropout(0.5)
        self.scale, self.bias = width**0.5, nn.Parameter(torch.zeros(items))

    def forward(self, inputs: Tensor, steps: Tensor) -> Tensor:
        """inputs: (users, T). steps: (users, T) bool, n of them true."""
        h = self.drop(self.lstm(self.drop(self.items(inputs) * self.scale))[0][steps])
        return h @ self.items.weight[:-1].T + self.bias


def lstm(stream: EventStream, split: Split, seed: int) -> np.ndarray:
    """Rows of the test events; a user's whole past is read before each."""
    torch.manual_seed(seed)
    first, past = stream.destinations
    item, event = sequences(stream)
    items = torch.from_numpy(np.maximum(item, 0))
    inputs = torch.cat([torch.full((len(item), 1), past - first), items[:, :-1]], 1)
    learned = torch.from_numpy((event >= 0) & (event < split.first_val))
    model = NextItem(past - first)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(LSTM_EPOCHS):
        for some in torch.randperm(len(item)).split(USERS):
            until = int(learned[some].any(0).sum())
            steps = learned[some, :until]
            optimizer.zero_grad()
            cross_entropy(model(inputs[some, :until], steps), items[some, :until][steps]).backward()
            optimizer.step()
    candidates = Candidates(stream, range(split.first_test, len(stream)), PROTOCOL)
    tested = event >= split.first_test
    with torch.no_grad():
        logits = model.eval()(inputs, torch.from_numpy(tested)).double().numpy()
    # Logits come user by user.
    order = np.argsort(event[tested])
    events = event[tested][order]
    asked = [stream.dst[events][:, None], candidates.paired(events)[:, None], candidates.against(events)]
    found = np.take_along_axis(logits[order], np.concatenate(asked, 1) - first, 1)
    return np.stack([found[:, 0], found[:, 1], ranks(found[:, 0], found[:, 2:])], 1)


def check(stream: EventStream) -> None:
    graph, model = Graph(stream), TemporalModel("tgn", width=8, time_width=8, features=stream.features, mode="exact")
    scored, found = range(400, 900), []
    state = advance(model, graph, model.state(graph), slice(0, 400))
    for cut in (1, 2):
        rows = []
        for part in parts(scored, cut):
            candidates = Candidates(stream, scored, PROTOCOL)
            rows.append(Evaluation(model, graph, state.copy(), scored, PROTOCOL, candidates).rows(part))
        found.append(np.concatenate(rows))
    assert np.array_equal(*found), "two parts differ from one pass"


def mean_over_seeds(name: str, run: Callable[[int], np.ndarray], seeds: int) -> None:
    found, seconds = [], 0.0
    for seed in range(seeds):
        rows, took = timed(lambda seed=seed: run(seed))
        found.append(figures(rows))
        seconds += took / seeds
    line(name, {key: float(np.mean([one[key] for one in found])) for key in found[0]}, f"{seconds:8.0f}")


def line(name: str, found: dict[str, Any], seconds: str = "") -> None:
    print(f"{name:22}{found['mrr']:7.3f}{found['hits@10']:9.3f}{found['ap']:7.3f}{seconds}", flush=True)


def main() -> None:
    torch.set_num_threads(1)
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    plain, told = sequence().stream, sequence(features=FEATURES).stream
    split = chronological(plain)
    check(told)
    example = TemporalModel("tgn", width=8, mode="exact")
    print(f"torch {torch.__version__}, one thread, {len(plain):,} events, seeds: {seeds}")
    print(described(example, plain, PROTOCOL))
    print("                          MRR  hits@10     AP  seconds")
    many = PROTOCOL.negatives + 1
    line("chance", {"mrr": float((1 / np.arange(1, many + 1)).mean()), "hits@10": 10 / many, "ap": 0.5})
    candidates = Candidates(plain, range(split.first_test, len(plain)), PROTOCOL)
    for name, found in baseline_figures(plain, candidates, split.first_val, batch=1).items():
        line(name, found)
    for preset in ("jodie", "tgn"):
        for messages, stream in (("", plain), (", messages", told)):
            mean_over_seeds(preset + messages, lambda seed, p=preset, s=stream: graph_model(p, s, split, seed), seeds)
    mean_over_seeds("lstm", lambda seed: lstm(plain, split, seed), seeds)


if __name__ == "__main__":
    main()
