"""make bench-dropout: what dropout drawn block by block costs: one thread, one process, ratios to no dropout.

    python tests/bench/dropout.py [blocks ...]

Embedding, GRU of width 32 and head, a batch of 16 windows of 64 symbols: rows of the whole batch without dropout, then in one
pass with masks of so many blocks, and with a pass for each block. Checked first: both ways give one gradient.
"""

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distseq.cluster.pool import Payload
from distseq.cluster.system.cpu_time import timed
from distseq.gradients.work import GradientWork
from distseq.models.data.synthetic import group_words

SYMBOLS, WIDTH, BATCH, WINDOW, REPEATS = 8, 32, 16, 64, 41


class Model(nn.Module):
    def __init__(self, p: float) -> None:
        super().__init__()
        self.table, self.rnn = nn.Embedding(SYMBOLS, WIDTH), nn.GRU(WIDTH, WIDTH, batch_first=True)
        self.head, self.drop = nn.Linear(WIDTH, SYMBOLS), nn.Dropout(p)

    def per_sample_loss(self, batch: dict[str, Tensor]) -> Tensor:
        y_BTV = self.head(self.drop(self.rnn(self.drop(self.table(batch["inputs"])))[0]))
        return F.cross_entropy(y_BTV.transpose(1, 2), batch["targets"], reduction="none").mean(1)


def work(p: float) -> GradientWork:
    torch.manual_seed(0)
    return GradientWork([{"model": Model(p), "data": group_words(3, WINDOW), "loss": None}])


def payload(one: GradientWork, blocks: int, joint: bool) -> Payload:
    vector = torch.cat([p.detach().flatten() for p in one.problem(0).parameters]).numpy()
    return Payload(0, 0, 0, vector, np.arange(BATCH), 0, "uncoded", 1, version=1, blocks=blocks, joint=joint)


def main() -> None:
    plain, drawing, ones = work(0.0), work(0.2), np.ones(BATCH)
    counts = [int(word) for word in sys.argv[1:]] or [8, 16]
    ways = {"without dropout": (plain, payload(plain, 0, False))}
    for blocks in counts:
        ways[f"one pass, {blocks} blocks"] = drawing, payload(drawing, blocks, True)
        ways[f"a pass each, {blocks} blocks"] = drawing, payload(drawing, blocks, False)
        together, apart = (
            one.row(job, job.ids, ones)[: len(job.parameters)]
            for one, job in (ways[f"one pass, {blocks} blocks"], ways[f"a pass each, {blocks} blocks"])
        )
        off = np.linalg.norm(together - apart) / np.linalg.norm(apart)
        assert off < 1e-5, f"{blocks} blocks: the two ways differ by {off:.1e}"
    samples = {name: one.read(job, job.ids) for name, (one, job) in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    # In turn, so that what else the machine does falls on all of them alike.
    for _ in range(REPEATS):
        for name, (one, job) in ways.items():
            seconds[name].append(
                timed(lambda one=one, job=job, read=samples[name]: one.row(job, job.ids, ones, read))[1]
            )  # type: ignore[misc]
    # The least, because what other programs do to caches only adds to it.
    least = min(seconds["without dropout"])
    print(f"torch {torch.__version__}, one thread, CPU ms of a row (least of {REPEATS}), ratio")
    for name, each in seconds.items():
        print(f"{name:26} {min(each) * 1e3:7.2f} {min(each) / least:6.2f}")


if __name__ == "__main__":
    main()
