"""make bench-kernels: time of the primitives, forward and backward, as ratios to PyTorch's own and to plain loops.

    python tests/bench/kernels.py [NAME...] [--repeat 5] [--csv FILE] [--quick]

One thread, one process. Values and gradients are compared first, and a difference ends the run. Contenders take turns; the
least process time of `repeat` counts. A ratio below its aim is marked. On a GPU: tests/bench/kernels_gpu.py.
"""

import argparse
import csv
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from kernel_entries import Entry, Tensors, entries, gradients

Row = dict[str, str | float]


def least_seconds(calls: Sequence[Callable[[], object]], repeat: int) -> list[float]:
    """The least process time of each, taken in turns, after one that does not count."""
    best = [float("inf")] * len(calls)
    for turn in range(repeat + 1):
        for at, call in enumerate(calls):
            begun = time.process_time()
            call()
            if turn:
                best[at] = min(best[at], time.process_time() - begun)
    return best


def compared(entry: Entry) -> Tensors:
    """The inputs, once ours and the others agree on them. SystemExit naming what does not."""
    inputs = {name: tensor.requires_grad_() for name, tensor in entry.inputs.items()}
    weights = torch.randn_like(entry.ours(inputs))
    ours = gradients(entry.ours, inputs, weights)
    for name, other in entry.others.items():
        for what, found, expected in zip(("y", *inputs), ours, gradients(other, inputs, weights), strict=True):
            found, expected = found.detach(), expected.detach()
            apart = float((found - expected).norm() / expected.norm().clamp_min(1e-6))
            if not apart <= entry.tolerance:
                sys.exit(f"{entry.name} {entry.shape}: {what} differs from that of {name} by {apart:.1e}")
    return inputs


def measured(entry: Entry, repeat: int) -> list[Row]:
    inputs = compared(entry)
    weights = torch.randn_like(entry.ours(inputs))
    runs = [entry.ours, *entry.others.values()]
    ours, *others = least_seconds([lambda run=run: gradients(run, inputs, weights) for run in runs], repeat)  # type: ignore[misc]
    shape = "x".join(map(str, entry.shape))
    return [
        {
            "primitive": entry.name,
            "shape": shape,
            "ours_ms": 1e3 * ours,
            "contender": name,
            "contender_ms": 1e3 * seconds,
            "ratio": seconds / ours,
            "aim": entry.aims.get(name, 0.0),
        }
        for name, seconds in zip(entry.others, others, strict=True)
    ]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("names", nargs="*", help="only primitives whose name begins so")
    arguments.add_argument("--repeat", type=int, default=5)
    arguments.add_argument("--csv", type=Path)
    arguments.add_argument("--quick", action="store_true", help="one small shape of each, to see that it runs")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(
        f"torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()}, 1 thread, forward + backward\n"
    )
    print("| primitive | shape | ours, ms | contender | its ms | its time / ours | aim |")
    print("|---|---|---|---|---|---|---|")
    rows: list[Row] = []
    for entry in entries(options.quick):
        if options.names and not entry.name.startswith(tuple(options.names)):
            continue
        for row in measured(entry, options.repeat):
            aim = f"{row['aim']}{' missed' if row['ratio'] < row['aim'] else ''}" if row["aim"] else ""  # type: ignore[operator]
            print(
                f"| {row['primitive']} | {row['shape']} | {row['ours_ms']:.1f} | {row['contender']} | {row['contender_ms']:.1f} |"
                f" {row['ratio']:.2f} | {aim} |",
                flush=True,
            )
            rows.append(row)
    if options.csv:
        partial = options.csv.with_suffix(".partial")
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        partial.replace(options.csv)


if __name__ == "__main__":
    main()
