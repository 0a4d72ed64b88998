"""make bench-learning: what each layer learns. One thread, medians of `--seeds` seeds.

    python tests/bench/learning.py [s3] [recall] [characters] [--seconds 30] [--steps 800] [--layers delta,mlstm] [--seeds 3]

s3          products of words of S3, trained at 16 steps, tried at 16 and 64: the share of right steps
recall      multi-query associative recall with 4, 8 and 16 pairs, two layers: the share of right answers
characters  held-out bits per character of one service's documentation, at equal parameters: after the same steps, and
            after the same seconds of process time (`--seconds`)

`--layers` limits recall and characters to these, so that the tables can be made in pieces.
"""

import argparse
import math
import os
import statistics
import time
from collections.abc import Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch.optim import Adam
from torch.optim.lr_scheduler import LambdaLR

from distseq.kernels.layers import LAYERS
from distseq.models.data.dataset import Dataset
from distseq.models.data.held_out import HeldOut
from distseq.models.data.synthetic import associative_recall, group_words
from distseq.models.data.text import open_aws
from distseq.models.sequence import IGNORED, SequenceModel

SEEDS = 3
TRACKERS = {  # what tracks a state, and what cannot, in one layer
    "lstm": "lstm",
    "delta_product, 2 steps": "delta_product:gated=false",
    "delta, 1 step": "delta:gated=false",
    "mamba: diagonal in [0, 1]": "mamba",
    "linear attention: scalar in [0, 1]": "linear_attention",
}
PARAMETERS = 60_000


def trained(
    model: SequenceModel,
    data: Dataset,
    seed: int,
    *,
    steps: int,
    batch: int = 64,
    rate: float = 3e-3,
    seconds: float = 0.0,
) -> int:
    """Steps of Adam, the rate rising over a twentieth and falling as a cosine, of the steps or of the seconds; how many."""
    draws, optimizer, begun = np.random.default_rng(seed), Adam(model.parameters(), lr=1.0), time.process_time()

    def done(step: int) -> float:
        return (time.process_time() - begun) / seconds if seconds else step / steps

    schedule = LambdaLR(optimizer, lambda step: rate * _share(done(step)))
    step = 0
    while done(step) < 1:
        loss = model.per_sample_loss(data.batch(draws.integers(len(data), size=batch))).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        step += 1
    return step


def _share(done: float) -> float:
    return min(1.0, 0.05 + 20 * done * 0.95) * (0.5 + 0.5 * math.cos(math.pi * min(1.0, done)))


def model_of(seed: int, **options: object) -> SequenceModel:
    torch.manual_seed(seed)
    return SequenceModel(**options)  # type: ignore[arg-type]


def accuracy(model: SequenceModel, data: Dataset, samples: int = 256) -> float:
    """Share of the targets that count which are most likely."""
    batch = data.batch(np.arange(samples))
    with torch.no_grad():
        right = (model(batch["inputs"]).argmax(-1) == batch["targets"])[batch["targets"] != IGNORED]
    return float(right.float().mean())


def tracking(layers: str, seed: int, steps: int) -> tuple[float, float]:
    """Shares of right steps of words of S3, 16 and 64 long, after training on those of 16."""
    model = model_of(seed, symbols=6, width=64, layers=layers, head="symbols", residual=True)
    trained(model, group_words(3, 16, seed=seed), seed, steps=steps, rate=5e-3)
    at_16, at_64 = (accuracy(model, group_words(3, length, seed=1000)) for length in (16, 64))
    return at_16, at_64


def recalling(layers: str, pairs: int, seed: int, steps: int) -> float:
    model = model_of(seed, symbols=65, width=64, layers=f"{layers}*2", head="symbols", residual=True)
    data = {"pairs": pairs, "length": 6 * pairs}
    trained(model, associative_recall(**data, seed=seed), seed, steps=steps)
    return accuracy(model, associative_recall(**data, seed=1000))


def width_of(layers: str) -> int:
    """The multiple of 8 whose model of two layers has closest to PARAMETERS parameters."""

    def apart(width: int) -> int:
        model = SequenceModel(width=width, layers=f"{layers}*2", residual=True)
        return abs(sum(p.numel() for p in model.parameters()) - PARAMETERS)

    return min(range(16, 160, 8), key=apart)


def characters(layers: str, seed: int, steps: int, seconds: float) -> tuple[float, int]:
    """Held-out bits per character, and the steps made."""
    text = open_aws("sqs", window=64)
    model = model_of(seed, width=width_of(layers), layers=f"{layers}*2", residual=True)
    made = trained(model, text, seed, steps=steps, batch=16, seconds=seconds)
    held_out = HeldOut(text, 200)
    with torch.no_grad():
        losses = model.per_sample_loss(held_out.batch(np.arange(len(held_out))))
    return float(losses.mean()) / math.log(2), made


def table(head: str, rows: Iterator[list[str]]) -> None:
    print(f"| {head} |\n|{'---|' * (head.count('|') + 1)}")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)
    print()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kinds = ("s3", "recall", "characters")
    arguments.add_argument("kinds", nargs="*", choices=[*kinds, []])
    arguments.add_argument("--seconds", type=float, default=30.0)
    arguments.add_argument("--steps", type=int, default=800)
    arguments.add_argument("--layers", default=",".join(LAYERS), help="of recall and characters, such as delta,mlstm")
    arguments.add_argument("--pairs", nargs="+", type=int, default=[4, 8, 16], help="of recall")
    arguments.add_argument("--seeds", type=int, default=SEEDS)
    options = arguments.parse_args()
    chosen, layers, seeds = options.kinds or kinds, options.layers.split(","), range(options.seeds)
    torch.set_num_threads(1)
    if "s3" in chosen:
        table(
            "one layer | right at 16 steps | at 64 | seeds at 16",
            (
                [name, f"{statistics.median(a for a, _ in found):.3f}", f"{statistics.median(b for _, b in found):.3f}",
                 ", ".join(f"{a:.3f}" for a, _ in found)]
                for name, layers in TRACKERS.items()
                for found in [[tracking(layers, seed, options.steps) for seed in seeds]]
            ),
        )  # fmt: skip
    if "recall" in chosen:
        table(
            " | ".join(["two layers", *(f"{pairs} pairs" for pairs in options.pairs)]),
            (
                [name, *(f"{statistics.median(recalling(name, pairs, seed, options.steps) for seed in seeds):.3f}"
                         for pairs in options.pairs)]
                for name in layers
            ),
        )  # fmt: skip
    if "characters" in chosen:
        table(
            f"two layers | width | bits/char after {options.steps} steps | after {options.seconds:g} s | steps in it",
            (
                [name, str(width_of(name)), f"{statistics.median(b for b, _ in even):.3f}",
                 f"{statistics.median(b for b, _ in timed):.3f}", f"{statistics.median(s for _, s in timed):.0f}"]
                for name in layers
                for even in [[characters(name, seed, options.steps, 0.0) for seed in seeds]]
                for timed in [[characters(name, seed, 0, options.seconds) for seed in seeds]]
            ),
        )  # fmt: skip


if __name__ == "__main__":
    main()
