"""The runs of make bench-temporal: what is compared, and one training with its evaluation."""

import json
import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

import distseq
from distseq.models.data.events import EventData, EventStream
from distseq.models.data.events.dataset import Events, open_events_data
from distseq.models.temporal import Draws, Graph, TemporalModel, changes, part_loss, prepare
from distseq.models.temporal.epochs import Epochs
from distseq.models.temporal.evaluation import Candidates, Evaluation, Protocol, baseline_figures, described, figures

WIDTH, EPOCHS = 32, 8
# AP of all test events; MRR of every fifth, against 50 uniform negatives.
PROTOCOL = Protocol(batch=200, negatives=50, every=5)


@dataclass(frozen=True)
class Setup:
    """One way to train. times: multiples of `--epochs`; momentum 0: Adam, with its betas; else Muon, with `adam` for the rest."""

    data: str
    mode: str
    batch: int
    lr: float
    momentum: float = 0.0
    adam: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    times: int = 1

    @property
    def optimizer(self) -> str:
        return "muon" if self.momentum else "adam"

    @property
    def name(self) -> str:
        more = f" x{self.times} epochs" if self.times > 1 else ""
        return f"{self.data} {self.mode} {self.batch} {self.optimizer} {self.lr:g}{more}"


def muon(data: str, mode: str, batch: int, times: int = 1, lr: float | None = None) -> Setup:
    """The recipe: rates by batch size, momentum that falls at large batches."""
    rate, momentum, adam = {200: (0.005, 0.95, 1e-3), 800: (0.02, 0.8, 3e-3), 3200: (0.05, 0.8, 8e-3)}[batch]
    return Setup(data, mode, batch, lr or rate, momentum, adam, (0.9, 0.95), times)


def choices(data: str) -> list[Setup]:
    """Batch 200, among whose rates the best is chosen on validation events."""
    rates = [muon(data, "exact", 200, lr=lr) for lr in (0.0025, 0.005, 0.01)]
    return [*rates, *(Setup(data, "exact", 200, lr) for lr in (1e-3, 3e-3, 1e-2))]


def compared(data: str) -> list[Setup]:
    """What is compared with them, the most important first."""
    if data == "flights":
        return [muon(data, "exact", 800), muon(data, "exact", 3200, times=3), muon(data, "replay", 3200, times=3)]
    return [
        *(muon(data, mode, 3200) for mode in ("exact", "replay", "parallel", "pres")),
        *(muon(data, mode, 800) for mode in ("exact", "replay")),
        Setup(data, "exact", 3200, 4e-3, betas=(0.8, 0.95)),
    ]


@cache
def events_of(data: str, path: str) -> Events:
    if data == "flights":
        return open_events_data("flights")
    with np.load(Path(path)) as found:
        src, dst, t = (found[name].astype(np.int64) for name in ("src", "dst", "t"))
    return Events(EventData(EventStream(src, dst, t)))


@cache
def graph_of(data: str, path: str) -> Graph:
    events = events_of(data, path)
    return Graph(events.stream, events.split.first_val)


def candidates_of(events: Events, part: str) -> Candidates:
    own = events.other(part).range
    return Candidates(events.stream, range(own.start, own.stop), PROTOCOL, training=events.split.first_val)


def model_of(setup: Setup, seed: int, features: int) -> TemporalModel:
    torch.manual_seed(seed)
    micro = {"micro": 200} if setup.mode == "replay" else {}
    return TemporalModel("tgn", width=WIDTH, time_width=WIDTH, features=features, dropout=0.0, mode=setup.mode, **micro)


def trained(setup: Setup, seed: int, path: str, epochs: int) -> dict[str, Any]:
    """Trains once, and evaluates on validation and test events with memory carried on; a JSON object."""
    events, graph = events_of(setup.data, path), graph_of(setup.data, path)
    model = model_of(setup, seed, events.stream.features)
    optimizer: torch.optim.Optimizer
    if setup.momentum:
        options = {"lr": setup.lr, "momentum": setup.momentum, "adam_lr": setup.adam, "adam_betas": setup.betas}
        optimizer = distseq.Muon(model, **options)
    else:
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], setup.lr, setup.betas)
    cut, begun = Epochs(len(events), setup.batch), time.process_time()
    state = model.state(graph)
    for step in range(cut.batches * epochs * setup.times):
        batch = cut.slice_of(step)
        state = state if batch.start else model.state(graph)
        prepared = prepare(model, graph, state, batch, Draws(seed, cut.epoch_of(step)))
        optimizer.zero_grad()
        part_loss(model, prepared, np.arange(batch.start, batch.stop)).backward()
        state.apply(changes(model, graph, state, batch, prepared), batch.stop)
        optimizer.step()
    seconds = (time.process_time() - begun) / (epochs * setup.times)
    found: dict[str, Any] = {**asdict(setup), "seed": seed, "seconds_per_epoch": seconds}
    for part in ("validation", "test"):
        own = candidates_of(events, part)
        way = Evaluation(model, graph, state, own.scored, PROTOCOL, own)
        got = figures(way.rows(np.array(own.scored)))
        found[part] = {name: got[name] for name in ("ap", "mrr", "ap_by_batch")}
        state = way.finish()
    return found


def beside(data: str, path: str) -> list[str]:
    """The baselines on the test events, and the rules of evaluation."""
    events = events_of(data, path)
    found = baseline_figures(events.stream, candidates_of(events, "test"), events.split.first_val, batch=1)
    lines = [f"  {name}: AP {each['ap']:.4f}, MRR {each['mrr']:.4f}" for name, each in found.items()]
    shown = described(model_of(muon(data, "exact", 200), 0, events.stream.features), events.stream, PROTOCOL)
    return [f"{data}, evaluated as here in the mode of training: {shown}", *lines]


def read(path: Path) -> list[dict[str, Any]]:
    """The runs that are done; a last line that was cut off is none."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found
