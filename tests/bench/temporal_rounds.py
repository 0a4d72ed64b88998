"""make bench-temporal-rounds: seconds per epoch of temporal batches of one, four and sixteen times 200 events on 16 workers.

    python tests/bench/temporal_rounds.py [--cost SECONDS] [--mode exact] [--width 100]

One epoch of flights. First, in this process and on one thread: seconds of a worker's row (a sixteenth of the batch, forward and
backward) and of advancing memory, which each worker's host does by itself. From these the simulator tells seconds per epoch of 16
workers with a core each, where each message of a round costs so many seconds; the live pool has the same cost injected, on the
cores that there are. The break-even cost is that above which the larger batch is faster by as much as is aimed at.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time

import numpy as np
import torch
from rich.console import Console

import distseq
from distseq.cluster.trace import Trace
from distseq.models.data.events.dataset import open_events_data
from distseq.models.temporal import Draws, Graph, TemporalModel, changes, part_loss, prepare

WORKERS, LEAST, TIMES = 16, 200, (1, 4, 16)
AIMS = {4: 3.4, 16: 8.0}
MEASURED, LIVE = 9, 40  # batches that are timed, and jobs of a live run at most


def model_of(options: argparse.Namespace) -> TemporalModel:
    torch.manual_seed(0)
    micro = {"micro": LEAST} if options.mode == "replay" else {}
    features = open_events_data("flights").stream.features
    return TemporalModel(
        "tgn", width=options.width, time_width=options.width, features=features, mode=options.mode, **micro
    )


def timed(options: argparse.Namespace, batch: int) -> tuple[float, float]:
    """Median seconds of a worker's row and of a host's advance."""
    data = open_events_data("flights")
    model, graph = model_of(options), Graph(data.stream, data.split.first_val)
    state, rows, advances = model.state(graph), [], []
    for k in range(min(MEASURED, len(data) // batch)):
        own, part = slice(k * batch, (k + 1) * batch), np.arange(k * batch, k * batch + -(-batch // WORKERS))
        begun = time.perf_counter()
        prepared = prepare(model, graph, state, own, Draws(0))
        scanned = time.perf_counter()
        part_loss(model, prepared, part).backward()
        computed = time.perf_counter()
        state.apply(changes(model, graph, state, own, prepared), own.stop)
        rows.append(computed - scanned)
        advances.append(time.perf_counter() - computed + scanned - begun)
    return statistics.median(rows[1:]), statistics.median(advances[1:])


def simulated(cost: float, row: float, advance: float, rounds: int) -> float:
    """Seconds of an epoch on workers with a core each."""
    trace = Trace(np.full((1, WORKERS), cost + advance + row), 1 / WORKERS, WORKERS * row)
    setting = distseq.Setting(trace, models=1, jobs=min(rounds, 50))
    return float(distseq.simulate(setting, "uncoded")["seconds_per_job"]) * rounds


def live(options: argparse.Namespace, batch: int, rounds: int) -> float:
    """Seconds of an epoch on the local pool, from those per job."""
    jobs, model = min(rounds, LIVE), model_of(options)
    learner = distseq.Learner(
        "tgn",
        model,
        torch.optim.Adam(model.parameters(), 1e-3),
        data="events:flights",
        batch=batch,
        steps=jobs,
    )
    learner.evaluation = None
    with tempfile.TemporaryDirectory() as out:
        result = distseq.train(
            [learner],
            pool="local",
            workers=WORKERS,
            scheme="uncoded",
            delays=f"none:base={options.cost}",
            checks=0,
            out=f"{out}/run",
            console=Console(quiet=True),
        )
    return float(result.summary["seconds_per_job"]) * rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cost", type=float, default=0.05, help="seconds of each round, injected")
    parser.add_argument("--mode", default="exact", choices=("parallel", "pres", "replay", "exact"))
    parser.add_argument("--width", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}")
    print(f"TGN, width {options.width}, mode {options.mode}, {WORKERS} workers, {options.cost:g} s for each message\n")
    events = len(open_events_data("flights"))
    print(
        "batch  rounds   row ms   advance ms   advance/row   simulated s   live s   simulated x   live x   break-even ms"
    )
    first: tuple[float, float, float, int] | None = None
    for times in TIMES:
        batch = times * LEAST
        rounds = -(-events // batch)
        row, advance = timed(options, batch)
        apart, here = simulated(options.cost, row, advance, rounds), live(options, batch, rounds)
        first = first or (apart, here, row + advance, rounds)
        even = ""
        if times in AIMS:
            # (rounds_1 (c + own_1)) / (rounds (c + own)) = aim
            aim = AIMS[times]
            cost = (aim * rounds * (row + advance) - first[3] * first[2]) / (first[3] - aim * rounds)
            even = f"{1e3 * max(0.0, cost):.0f} for {aim:g}x"
        print(
            f"{batch:>5}  {rounds:>6}  {1e3 * row:>7.2f}  {1e3 * advance:>11.2f}  {advance / row:>12.2f}  {apart:>12.2f}"
            f"  {here:>7.2f}  {first[0] / apart:>12.1f}  {first[1] / here:>7.1f}   {even:>13}",
            flush=True,
        )


if __name__ == "__main__":
    main()
