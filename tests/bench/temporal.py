"""make bench-temporal ARGS="--wikipedia FILE.npz": what large temporal batches lose, by mode, over paired seeds.

TGN of width 32, 10 neighbors, no dropout, 8 epochs, memory carried on from training into evaluation. Batch 200 with the best of
three rates of Muon and of Adam, chosen on validation events of two seeds, is compared with batches of 4 and 16 times that: mean
difference of test AP and MRR over seeds that both have, with its 95 % interval. What is done is kept in --out, and is not done
again. Wikipedia does not come with distseq: an .npz with src, dst and t. Without its 172 features it is not comparable with
published AP.
"""

import argparse
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch
from temporal_report import report
from temporal_runs import EPOCHS, Setup, beside, choices, compared, read, trained

CHOSEN_ON = 2  # seeds


def one(setup: Setup, seed: int, path: str, epochs: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    return trained(setup, seed, path, epochs)


def best(done: list[dict[str, Any]], setups: list[Setup], optimizer: str) -> Setup | None:
    """Of the rates that all seeds have, the one with the highest AP on validation events; None while some are missing."""
    scores = {}
    for setup in setups:
        if setup.optimizer == optimizer:
            own = [run["validation"]["ap"] for run in done if same(run, setup) and run["seed"] < CHOSEN_ON]
            if len(own) < CHOSEN_ON:
                return None
            scores[setup] = sum(own)
    return max(scores, key=lambda setup: scores[setup])


def same(run: dict[str, Any], setup: Setup) -> bool:
    return all(run[name] == getattr(setup, name) for name in ("data", "mode", "batch", "lr", "momentum", "times"))


def wanted(done: list[dict[str, Any]], data: list[str], seeds: int) -> list[tuple[Setup, int]]:
    """The runs that are missing, the most important first: rates, then seed after seed."""
    missing: list[tuple[Setup, int]] = []
    for name in data:
        missing += [(setup, seed) for seed in range(CHOSEN_ON) for setup in choices(name)]
    for seed in range(seeds):
        for name in data:
            bests = [best(done, choices(name), optimizer) for optimizer in ("muon", "adam")]
            missing += [(setup, seed) for setup in (*bests, *compared(name)) if setup is not None]
    have = {
        (run["data"], run["mode"], run["batch"], run["lr"], run["momentum"], run["times"], run["seed"]) for run in done
    }
    return [
        (s, seed)
        for s, seed in dict.fromkeys(missing)
        if (s.data, s.mode, s.batch, s.lr, s.momentum, s.times, seed) not in have
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wikipedia", default="", help="an .npz with src, dst and t")
    parser.add_argument("--out", type=Path, default=Path("build/temporal.jsonl"))
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--budget", type=float, default=90, help="minutes after which no run is begun")
    parser.add_argument("--report", action="store_true", help="only print what there is")
    options = parser.parse_args()
    data = ["wikipedia", "flights"] if options.wikipedia else ["flights"]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + (0 if options.report else 60 * options.budget)
    with ProcessPoolExecutor(options.workers) as pool:
        while time.monotonic() < end and (todo := wanted(read(options.out), data, options.seeds)):
            # A few at a time: which rate is best is known only when its runs are done.
            now = [pool.submit(one, s, seed, options.wikipedia, options.epochs) for s, seed in todo[: options.workers]]
            for future in as_completed(now):
                run = future.result()
                with open(options.out, "a") as file:
                    file.write(json.dumps(run) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
                print(
                    f"{run['data']} {run['mode']} {run['batch']} lr {run['lr']:g} seed {run['seed']}: {run['test']}",
                    flush=True,
                )
    done = read(options.out)
    print(
        f"torch {torch.__version__}, {options.epochs} epochs, {len(done)} runs; {len(wanted(done, data, options.seeds))} missing"
    )
    for name in data:
        bests = {optimizer: best(done, choices(name), optimizer) for optimizer in ("muon", "adam")}
        print("\n".join(["", *beside(name, options.wikipedia), *report(done, choices(name), compared(name), bests)]))


if __name__ == "__main__":
    main()
