"""All learners of a job, built from its configuration and tried out once, and the Work that computes their rows."""

import copy
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from distseq.checkpoint import Checkpoint, encode
from distseq.cluster.errors import PoolError
from distseq.cluster.pool import Payload
from distseq.cluster.work import WorkSpec
from distseq.config import Config, LearnerConfig
from distseq.learner import Learner, torch_optimizer
from distseq.models.data import open_dataset
from distseq.models.text import Text
from distseq.task import DTYPES, Task, build_model, trained

TRIED = 2  # samples of the trial row


@dataclass(frozen=True)
class Fleet:
    """The learners, the Work on this machine, and the same Work for other hosts."""

    learners: tuple[Learner, ...]
    task: Task
    spec: WorkSpec

    def texts(self) -> dict[str, Text]:
        """The data of the learners whose data are text, by name."""
        data = {learner.name: self.task.problem(m).data for m, learner in enumerate(self.learners)}
        return {name: text for name, text in data.items() if isinstance(text, Text)}


def build_fleet(config: Config) -> Fleet:
    """Open the data, build the models, and try a row and a step of each. ValueError naming what is missing or wrong."""
    built = [_build(config, m, one) for m, one in enumerate(config.learner)]
    work: dict[str, Any] = {"learners": [spec for _, spec in built], "dtype": config.run.dtype}
    fleet = Fleet(tuple(learner for learner, _ in built), Task(**work), WorkSpec("distseq.task:Task", json.dumps(work)))
    for m in range(len(fleet.learners)):
        _try(fleet, m)
    return fleet


def _build(config: Config, m: int, one: LearnerConfig) -> tuple[Learner, dict[str, Any]]:
    try:
        data = open_dataset(one.data, **one.data_args)
    except ImportError as error:
        raise ValueError(f"data {one.data!r}: {error}") from None
    seed = int(np.random.SeedSequence([config.run.seed, m]).generate_state(1)[0])
    model = build_model(one.model, one.model_args, seed, DTYPES[config.run.dtype])
    learner = Learner(
        one.name,
        model,
        torch_optimizer(one.optimizer, one.optimizer_args, trained(model)),
        samples=len(data),
        batch=one.batch,
        steps=config.run.steps if one.steps is None else one.steps,
        seed=seed,
        clip=one.clip,
    )
    spec = {"model": one.model, "model_args": one.model_args, "data": one.data, "data_args": one.data_args}
    return learner, {**spec, "seed": seed, "fingerprint": data.fingerprint}


def _try(fleet: Fleet, m: int) -> None:
    """One row of a few samples, one step on a copy and its checkpoint: a mistake shows here, before any worker starts."""
    learner = fleet.learners[m]
    try:
        o = learner.open(0)
        payload = Payload(-1, m, 0, o.parameters, o.ids[:TRIED], o.seed, "uncoded", 1, version=-1)
        row = fleet.task.row(payload, payload.ids, np.ones(len(payload.ids)))
        tried = copy.deepcopy(learner)
        tried.apply(row.astype(np.float64))
        encode(Checkpoint("", 0, {learner.name: 1}, {learner.name: tried.snapshot()}))
    except (PoolError, FloatingPointError):
        raise
    except Exception as error:  # a user's model may raise anything
        message = str(error).splitlines()[0] if str(error) else ""
        raise ValueError(f"learner {learner.name}: {type(error).__name__}: {message}") from error
