"""The main job as a measure: its models, the weights that every training begins with, and what one has learned."""

import os
import time
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from contenders import Kept, Run

from distseq.cluster.pool import Payload
from distseq.config.toml_file import load_config
from distseq.learners.from_config import build_fleet
from distseq.learners.snapshot import Snapshot

MAIN = Path(__file__).resolve().parents[2] / "examples" / "main.toml"
MOST = 400  # steps of the reference, after which the target is out of reach
COSTS = 5  # gradients that are timed for what one costs
MARGIN = 1  # steps beyond the reference's, for rounding
ALIKE = 1e-3  # bits per character: largest difference to the reference at the same step


class Curve(NamedTuple):
    """Where the reference crosses the target, for each learner: steps made, and bits per character then."""

    steps: list[int]
    bits: list[float]


class MainJob:
    """On n workers, each a host of its own. `worst`: bits per character by which a training was off the reference."""

    def __init__(self, kind: str, n: int, target: float) -> None:
        config = load_config(MAIN)
        cpus = min(1.0, int(100 * (os.cpu_count() or 1) / n) / 100)
        pool = replace(config.pool, kind=kind, workers=n, hosts=n, cpus=cpus)
        self.config = replace(config, pool=pool)
        self.fleet = build_fleet(self.config)
        self.learners = self.fleet.learners
        self._begin: list[Snapshot] = [deepcopy(one.snapshot()) for one in self.learners]
        self.target = target
        self.worst = 0.0
        self.curve = self._reference()
        for one in self.learners:
            one.steps = max(self.curve.steps) + MARGIN

    def bits(self, m: int) -> float:
        """Held-out bits per character of a model as it is."""
        one = self.learners[m]
        assert one.evaluation is not None, f"{one.name} has no held-out text"
        with torch.no_grad():
            losses = one.model.per_sample_loss(one.evaluation.batch(np.arange(len(one.evaluation))))  # type: ignore[operator]
        return float(losses.mean()) / float(np.log(2))

    def costs(self) -> tuple[float, float]:
        """CPU milliseconds of the first model's whole batch, and of a worker's part of it: least of several."""
        one, n = self.learners[0], self.config.pool.workers
        ids = one.ids(0)
        return self._milliseconds(ids), self._milliseconds(ids[: len(ids) // n])

    def _milliseconds(self, ids: np.ndarray) -> float:
        o, times = self.learners[0].open(0), list[float]()
        payload = Payload(0, 0, 0, o.parameters, o.ids, o.seed, "uncoded", 1)
        for _ in range(COSTS):
            begun = time.process_time()
            self.fleet.work.row(payload, ids, np.ones(len(ids)))
            times.append(time.process_time() - begun)
        return 1e3 * min(times)

    def restore(self) -> None:
        for one, begin in zip(self.learners, self._begin, strict=True):
            one.restore(deepcopy(begin))

    def _reference(self) -> Curve:
        """Full batches in this process, until every model has reached the target."""
        curve, number = Curve([], []), 0
        for m, one in enumerate(self.learners):
            for step in range(MOST):
                o, number = one.open(step), number + 1
                payload = Payload(number, m, step, o.parameters, o.ids, o.seed, "uncoded", 1, version=number)
                one.apply(self.fleet.work.row(payload, o.ids, np.ones(len(o.ids))).astype(np.float64))
                bits = self.bits(m)
                if bits <= self.target:
                    curve.steps.append(step + 1)
                    curve.bits.append(bits)
                    break
            else:
                raise SystemExit(
                    f"{one.name} does not reach {self.target} bits/char in {MOST} steps: give another target"
                )
        return curve

    def reached(self, run: Run) -> float | None:
        """Seconds until the last model had reached the target; None where one has not.

        AssertionError where a model is not what the reference is after as many steps.
        """
        latest = 0.0
        for m, (kept, steps, expected) in enumerate(zip(run.kept, *self.curve, strict=True)):
            if len(kept) < steps:
                return None
            at_step = self._bits_of(m, kept[steps - 1])
            self.worst = max(self.worst, abs(at_step - expected))
            assert self.worst <= ALIKE, (
                f"{self.learners[m].name}: {at_step:.4f} bits/char, the reference {expected:.4f}"
            )
            first = next(
                (k for k in range(max(0, steps - 2), len(kept)) if self._bits_of(m, kept[k]) <= self.target), None
            )
            if first is None:
                return None
            latest = max(latest, kept[first].at)
        return latest

    def _bits_of(self, m: int, kept: Kept) -> float:
        model = self.learners[m].model
        torch.nn.utils.vector_to_parameters(torch.from_numpy(kept.parameters.copy()), model.parameters())
        return self.bits(m)
