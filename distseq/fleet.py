"""All learners of a job, built from its configuration and tried out once, and the Work that computes their rows."""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from distseq.checkpoint import Checkpoint, encode
from distseq.cluster.errors import FaultError
from distseq.cluster.pool import Payload
from distseq.cluster.work import WorkSpec
from distseq.config import Config, LearnerConfig
from distseq.contract import check_contract, draws
from distseq.learner import Learner, torch_optimizer, torch_schedule
from distseq.models.data import Dataset
from distseq.models.held_out import open_evaluation
from distseq.models.text import Text
from distseq.reading import DataError, opened
from distseq.task import DTYPES, Task, build_model, trained


@dataclass(frozen=True)
class Fleet:
    """The learners, the Work on this machine's CPU, and the same Work for hosts and their devices."""

    learners: tuple[Learner, ...]
    task: Task
    spec: WorkSpec
    work: str  # configuration of the Work, the same on every device
    evaluated: tuple[int, ...]  # samples that each learner is evaluated on; 0 = it is not

    def texts(self) -> dict[str, Text]:
        """The data of the learners whose data are text, by name."""
        data = {learner.name: self.task.problem(m).data for m, learner in enumerate(self.learners)}
        return {name: text for name, text in data.items() if isinstance(text, Text)}


def build_fleet(config: Config) -> Fleet:
    """Open the data, build the models, and try a row and a step of each. ValueError naming what is missing or wrong."""
    data = [_open(one) for one in config.learner]
    held_out = [_open_evaluation(one, d) for one, d in zip(config.learner, data, strict=True)]
    specs = [_spec(config, m, data[m], held_out[m]) for m in range(len(data))]
    work: dict[str, Any] = {"learners": specs, "dtype": config.run.dtype}
    learners = tuple(_learner(config, m, len(data[m])) for m in range(len(data)))
    evaluated = tuple(0 if d is None else len(d) for d in held_out)
    paths = tuple(str(Path(folder).resolve()) for folder in sys.path)
    hosts = json.dumps(work | {"device": config.pool.device})
    spec = WorkSpec("distseq.task:Task", hosts, paths, prefetch=config.pool.prefetch)
    fleet = Fleet(learners, Task(**work), spec, json.dumps(work), evaluated)
    for m in range(len(learners)):
        _try(fleet, m, _learner(config, m, len(data[m])))
    # What a thread reads may draw from the generators too.
    apart = not any(draws(fleet.task.problem(m)) for m in range(len(learners)))
    return replace(fleet, spec=replace(spec, prefetch=spec.prefetch and apart))


def _open(one: LearnerConfig) -> Dataset:
    try:
        return opened(one.data, one.data_args)
    except DataError as error:
        raise ValueError(f"learner {one.name}: {error}") from error


def _open_evaluation(one: LearnerConfig, data: Dataset) -> Dataset | None:
    if one.evaluation is None and one.evaluation_args:
        raise ValueError(f"learner {one.name}: evaluation_args without an evaluation")
    try:
        held_out = open_evaluation(data, one.evaluation, one.evaluation_args)
    except ImportError as error:
        raise ValueError(f"evaluation {one.evaluation!r}: {error}") from None
    if held_out is not None and not len(held_out):
        raise ValueError(f"learner {one.name}: the data to evaluate on have no samples")
    return held_out


def _seed(config: Config, m: int) -> int:
    return int(np.random.SeedSequence([config.run.seed, m]).generate_state(1)[0])


def _spec(config: Config, m: int, data: Dataset, held_out: Dataset | None) -> dict[str, Any]:
    one = config.learner[m]
    spec: dict[str, Any] = {
        "model": one.model,
        "model_args": one.model_args,
        "data": one.data,
        "data_args": one.data_args,
    }
    spec |= {"seed": _seed(config, m), "fingerprint": data.fingerprint}
    spec |= {"evaluation": one.evaluation, "evaluation_args": one.evaluation_args}
    return {**spec, "evaluation_fingerprint": None if held_out is None else held_out.fingerprint}


def _learner(config: Config, m: int, samples: int) -> Learner:
    one, seed = config.learner[m], _seed(config, m)
    steps = config.run.steps if one.steps is None else one.steps
    model = build_model(one.model, one.model_args, seed, DTYPES[config.run.dtype])
    if not trained(model):
        raise ValueError(f"learner {one.name}: model {one.model!r} has no parameter that requires a gradient")
    optimizer = torch_optimizer(one.optimizer, one.optimizer_args, trained(model))
    if one.schedule is None and one.schedule_args:
        raise ValueError(f"learner {one.name}: schedule_args without a schedule")
    schedule = None if one.schedule is None else torch_schedule(one.schedule, one.schedule_args, optimizer, steps)
    return Learner(
        one.name,
        model,
        optimizer,
        samples=samples,
        batch=one.batch,
        steps=steps,
        seed=seed,
        clip=one.clip,
        schedule=schedule,
    )


def _try(fleet: Fleet, m: int, trial: Learner) -> None:
    """The contract, a row, a step of a learner like the m-th and its checkpoint: a mistake shows before any worker starts."""
    learner = fleet.learners[m]
    try:
        o = learner.open(0)
        payload = Payload(-1, m, 0, o.parameters, o.ids, o.seed, "uncoded", 1, version=-1)
        row = check_contract(fleet.task, payload, learner.model)
        trial.apply(row.astype(np.float64))
        if fleet.evaluated[m]:
            fleet.task.row(replace(payload, kind="evaluation"), np.zeros(1, np.int64), np.ones(1))
        encode(Checkpoint("", 0, {learner.name: 1}, {learner.name: trial.snapshot()}))
    except FloatingPointError as error:
        raise FloatingPointError(f"learner {learner.name}: {error}") from None
    except Exception as error:  # a user's model may raise anything
        message = " ".join(str(error).splitlines()[:1])
        kind = "" if isinstance(error, ValueError | FaultError) else f"{type(error).__name__}: "
        raise ValueError(f"learner {learner.name}: {kind}{message}") from error
