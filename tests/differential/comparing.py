"""Runs a world and its oracle, and compares every tensor of their weights; or takes note of the rule that refused the run."""

import os
import re
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

import distseq
from distseq.cluster.system.stop_signals import Stopped
from distseq.learners.learner import Learner
from tests.differential.plain import trained_plainly
from tests.differential.worlds import Run, World, schemes, seed_of

# Relative, for each tensor alone.
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}


class Stop(distseq.Observer):
    """Stops the run after so many jobs, as Ctrl-C does."""

    def __init__(self, after: int) -> None:
        self.left = after

    def job_applied(self, *_: Any, **__: Any) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)


class Found:
    """What a number of runs gave."""

    def __init__(self) -> None:
        self.draws, self.refused, self.stopped, self.worst = 0, Counter[str](), 0, {"float32": 0.0, "float64": 0.0}

    def __str__(self) -> str:
        rules = "; ".join(f"{count} x {rule}" for rule, count in self.refused.most_common())
        worst = ", ".join(f"{name} {value:.1e}" for name, value in self.worst.items())
        return (
            f"{self.draws} learners, {self.stopped} runs stopped and resumed, largest difference {worst}; "
            f"{sum(self.refused.values())} refused: {rules or 'none'}"
        )


def check(run: Run, folder: Path, found: Found, pool: dict[str, Any] | None = None) -> None:
    """AssertionError unless each learner ends with the weights of the plain loop, or is refused for a good reason."""
    options = dict(run.options) | (pool or {"pool": "simulated"})
    if pool is not None:
        for simulated in ("unfinished", "compute"):
            del options[simulated]
    worlds, refused = list(run.worlds), list[World]()
    found.draws += len(worlds)
    while worlds:
        try:
            if not any(world.evaluated for world in worlds):
                options.pop("evaluate_every", None)
            # Some schemes need as many learners as were drawn.
            if "scheme" in options and options["scheme"] not in schemes(run.workers, len(worlds)):
                options["scheme"] = "uncoded"
            learners = trained(worlds, run, folder / str(len(refused)), options, found)
            break
        except ValueError as error:
            world, message = culprit(worlds, str(error)), str(error)
            if not (world.refusable or world.may_be_refused):
                raise AssertionError(f"refused: {world}\nof {run}") from error
            found.refused[rule(message)] += 1
            refused.append(world)
            # The others must be trained all the same; written ones keep their place, on which their seed depends.
            worlds = [one for one in worlds if one is not world]
            if run.written:
                worlds = [replace(one, seed=seed_of(options["seed"], m)) for m, one in enumerate(worlds)]
    every = options.get("evaluate_every", 0)
    for world, learner in zip(worlds, learners if worlds else (), strict=True):
        assert not world.refusable, f"trained, but cannot be trained by parts: {world}"
        compare(world, learner, every, found)


def trained(worlds: list[World], run: Run, out: Path, options: dict[str, Any], found: Found) -> list[Learner]:
    """The learners after the run, which is stopped and resumed if that was drawn."""
    quiet = Console(quiet=True)
    watchers = [] if run.stop is None else [Stop(run.stop)]

    def given() -> Any:
        """What is trained, made anew: a mapping as of a config file, or learners."""
        if run.written:
            tables = [world.table(f"m{k}") for k, world in enumerate(worlds)]
            return {"learner": tables, "run": {"dtype": worlds[0].dtype}}
        return [world.learner(f"m{k}") for k, world in enumerate(worlds)]

    try:
        result = distseq.train(given(), out=out, console=quiet, watchers=watchers, **options)
    except (Stopped, KeyboardInterrupt):
        if run.stop is None:
            raise
        found.stopped += 1
        result = distseq.train(None if run.written else given(), resume=out, console=quiet)
    assert not result.summary["failures"], f"{result.summary['failures']}\nof {run}"
    return list(result.learners)


def culprit(worlds: list[World], message: str) -> World:
    named = re.search(r"learner m(\d+)", message)
    assert named, f"a refusal must name the learner: {message}"
    return worlds[int(named[1])]


def rule(message: str) -> str:
    """A message without names and numbers."""
    text = re.sub(r"learner m\d+: ", "", message)
    text = re.sub(r"'[^']*'|\b[\d.e+-]+\b", "_", text)
    return text[:70]


def compare(world: World, learner: Learner, every: int, found: Found) -> None:
    assert world.cut is None or learner.cut.blocks == world.cut
    model, average = trained_plainly(world, learner.cut.blocks, every)
    pairs = [(model, learner.model)] + ([] if average is None else [(average, learner.averaged)])
    for expected, trained_model in pairs:
        assert trained_model is not None
        own = trained_model.state_dict()
        for name, tensor in expected.state_dict().items():
            off = difference(own[name], tensor)
            found.worst[world.dtype] = max(found.worst[world.dtype], off)
            assert off <= TOLERANCE[world.dtype], f"{name} is off by {off:.1e}\nin {world}"


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    if not expected.is_floating_point():
        return 0.0 if torch.equal(found, expected) else float("inf")
    one, other = found.double().numpy(), expected.double().numpy()
    return float(np.linalg.norm(one - other) / max(np.linalg.norm(other), 1e-2 * other.size**0.5))
