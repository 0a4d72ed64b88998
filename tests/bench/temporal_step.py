"""make bench-temporal-step: events per second of one step of a temporal model in each mode, and what advancing memory costs.

    python tests/bench/temporal_step.py [FILE.npz with src, dst and t]

TGN at its published size (width 100, 172 random message features, 10 neighbors, dropout 0.1), one thread, mid-stream, batches of
200, 800 and 3,200 events. A step is prepare, part_loss of the batch, backward and advance. Without a file, the stream has the
size of Wikipedia. Checked first: gradients of two parts add up to that of the batch.
"""

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import numpy as np
import torch

from distseq.cluster.system.cpu_time import timed
from distseq.models.data.events import EventStream
from distseq.models.temporal import (
    Draws,
    Graph,
    Prepared,
    State,
    TemporalModel,
    advance,
    changes,
    part_loss,
    prepare,
)

FEATURES, SIZES, REPEATS = 172, (200, 800, 3200), 5
MODES = {"parallel": {}, "pres": {}, "replay": {"micro": 200}, "exact": {}}


def stream_of(path: str | None) -> EventStream:
    rng = np.random.default_rng(0)
    if path is None:
        # 8,227 users who mostly come back to their last of 1,000 pages, both with heavy tails.
        user = (8227 * rng.random(60_000) ** 3).astype(np.int64)
        page = 8227 + (1000 * rng.random(60_000) ** 3).astype(np.int64)
        last: dict[int, int] = {}
        again = rng.random(60_000) < 0.79
        for e, (u, repeats) in enumerate(zip(user.tolist(), again.tolist(), strict=True)):
            page[e] = last.get(u, page[e]) if repeats else page[e]
            last[u] = int(page[e])
        src, dst, t = user, page, np.cumsum(rng.integers(0, 35, 60_000))
    else:
        with np.load(Path(path)) as found:
            src, dst, t = (found[name].astype(np.int64) for name in ("src", "dst", "t"))
    message = rng.normal(size=(len(src), FEATURES)).astype(np.float32)
    return EventStream(src, dst, t, message)


def model_of(mode: str) -> TemporalModel:
    torch.manual_seed(0)
    return TemporalModel("tgn", width=100, time_width=100, features=FEATURES, mode=mode, **MODES[mode])


def check(graph: Graph, mode: str) -> None:
    model = model_of(mode)
    state = advance(model, graph, model.state(graph), slice(0, 400))
    prepared = prepare(model, graph, state, slice(400, 800))
    gradients = []
    for parts in ([np.arange(400, 800)], [np.arange(400, 500), np.arange(500, 800)]):
        model.zero_grad()
        for part in parts:
            part_loss(model, prepared, part).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    off = float((gradients[0] - gradients[1]).norm() / gradients[0].norm())
    assert off < 1e-5, f"{mode}: parts differ from the whole by {off:.1e}"


def main() -> None:
    torch.set_num_threads(1)
    graph = Graph(stream_of(sys.argv[1] if len(sys.argv) > 1 else None))
    print(f"torch {torch.__version__}, one thread, {graph.events:,} events, {graph.nodes:,} nodes")
    print("batch  mode       events/s   step ms   advance ms   advance/step   step/parallel")
    for mode in MODES:
        check(graph, mode)
    for size in SIZES:
        start = min(graph.events // 2, graph.events - size)
        parallel = 0.0
        for mode in MODES:
            model = model_of(mode)
            state = model.state(graph)
            for at in range(max(0, start - 6400), start, 3200):
                state.position = at
                state = advance(model, graph, state, slice(at, min(at + 3200, start)))
            state.position = start
            batch, draws = slice(start, start + size), Draws(0)

            def ahead(
                prepared: Prepared | None, model: TemporalModel = model, state: State = state, batch: slice = batch
            ) -> None:
                # In place, and back again: what a host does that keeps one state.
                state.apply(state.apply(changes(model, graph, state, batch, prepared), batch.stop), batch.start)

            def step(
                model: TemporalModel = model, state: State = state, batch: slice = batch, draws: Draws = draws
            ) -> None:
                prepared = prepare(model, graph, state, batch, draws)
                part_loss(model, prepared, np.arange(batch.start, batch.stop)).backward()
                ahead(prepared, model, state, batch)

            # The least, because what other programs do to caches only adds to it.
            whole = min(timed(step)[1] for _ in range(REPEATS))
            alone = min(timed(lambda: ahead(None))[1] for _ in range(REPEATS))
            parallel = parallel or whole
            print(
                f"{size:5}  {mode:9} {size / whole:9,.0f} {whole * 1e3:9.1f} {alone * 1e3:12.2f} {alone / whole:14.1%} "
                f"{whole / parallel:15.2f}"
            )


if __name__ == "__main__":
    main()
