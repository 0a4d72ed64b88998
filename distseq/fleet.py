"""All learners of a job, built from its configuration and tried out once, and the Work that computes their rows."""

import json
import pickle
import sys
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from distseq.checkpoint import Checkpoint, encode
from distseq.cluster.errors import FaultError
from distseq.cluster.pool import Payload
from distseq.cluster.work import WorkSpec
from distseq.config import DTYPES as DTYPE_NAMES
from distseq.config import LIVE, Config, LearnerConfig
from distseq.contract import check_contract, draws
from distseq.learner import Learner
from distseq.models.data import Dataset
from distseq.models.held_out import held_out
from distseq.models.text import Text
from distseq.optimizers import torch_optimizer, torch_schedule
from distseq.reading import DataError, opened
from distseq.task import DTYPES, Task, build_model, trained


@dataclass(frozen=True)
class Fleet:
    """The learners, the Work on this machine's CPU, the same Work for hosts and their devices, and what of it a resumed run
    must have too."""

    learners: tuple[Learner, ...]
    task: Task
    spec: WorkSpec
    same: str

    @property
    def evaluated(self) -> tuple[int, ...]:
        """Samples that each learner is evaluated on; 0 = it is not."""
        return tuple(0 if one.evaluation is None else len(one.evaluation) for one in self.learners)

    def texts(self) -> dict[str, Text]:
        """The data of the learners whose data are text, and whose models say its loss themselves, by name."""
        return {one.name: one.data for one in self.learners if isinstance(one.data, Text) and one.loss is None}


def build_fleet(config: Config) -> Fleet:
    """Open the data, build the models, and try a row and a step of each. ValueError naming what is missing or wrong."""
    for one in config.learner:
        if one.live:
            raise ValueError(
                f"learner {one.name}: its model was made in Python and cannot be imported: give the learners again, "
                "distseq.train([...], resume=RUN)"
            )
    data = [_open(one) for one in config.learner]
    evaluation = [_open_evaluation(one, d) for one, d in zip(config.learner, data, strict=True)]
    specs = [_spec(config, m, data[m], evaluation[m]) for m in range(len(data))]
    work: dict[str, Any] = {"learners": specs, "dtype": config.run.dtype}
    learners = tuple(_learner(config, m, data[m], evaluation[m]) for m in range(len(data)))
    hosts = json.dumps(work | {"device": config.pool.device})
    spec = _work(config, "distseq.task:Task", hosts)
    return _tried(Fleet(learners, Task(**work), spec, json.dumps(work)))


def _work(config: Config, target: str, args: str) -> WorkSpec:
    paths = tuple(str(Path(folder).resolve()) for folder in sys.path)
    return WorkSpec(target, args, paths, prefetch=config.pool.prefetch, stack=config.pool.stack)


def _tried(fleet: Fleet) -> Fleet:
    for m in range(len(fleet.learners)):
        _try(fleet, m)
    # What a thread reads may draw from the generators too.
    apart = not any(draws(fleet.task.problem(m)) for m in range(len(fleet.learners)))
    return replace(fleet, spec=replace(fleet.spec, prefetch=fleet.spec.prefetch and apart))


def live_config(learners: Sequence[Learner], config: Config | None = None) -> Config:
    """A configuration of learners made in Python, the rest as in `config`; the dtype is that of their parameters."""
    described = tuple(map(_live, learners))
    config = Config(described) if config is None else replace(config, learner=described)
    return replace(config, run=replace(config.run, dtype=_dtype(learners)))


def _live(one: Learner) -> LearnerConfig:
    return LearnerConfig(
        one.name,
        f"{LIVE}{type(one.model).__qualname__}",
        one.spec or f"{LIVE}{type(one.data).__qualname__}",
        one.batch,
        data_args=one.data_args,
        evaluation=one.evaluation_spec
        or (f"{LIVE}{type(one.evaluation).__qualname__}" if one.evaluation_given else None),
        evaluation_args=one.evaluation_args,
        optimizer=type(one.optimizer).__name__,
        schedule=None if one.schedule is None else type(one.schedule).__name__,
        clip=one.clip,
        steps=one.steps,
        accumulate=one.accumulate,
        ema=one.ema,
    )


def _dtype(learners: Iterable[Learner]) -> str:
    """The one dtype of all trained parameters. ValueError when there are several, or another than rows can have."""
    found = {str(p.dtype).rpartition(".")[2]: one.name for one in learners for p in trained(one.model)}
    if len(found) != 1 or not found.keys() <= set(DTYPE_NAMES):
        got = ", ".join(f"{dtype} in {name}" for dtype, name in found.items())
        raise ValueError(f"the parameters of all learners must be of one dtype, {' or '.join(DTYPE_NAMES)}: got {got}")
    return found.popitem()[0]


def live_fleet(config: Config, learners: Sequence[Learner]) -> Fleet:
    """Learners made in Python, to make the steps that `config`, from `live_config`, says; each is tried and left as it was.

    ValueError for a broken contract, two that share parameters, or a model, loss or data that cannot be pickled.
    """
    from distseq import live

    for learner, one in zip(learners, config.learner, strict=True):
        learner.steps = config.run.steps if one.steps is None else one.steps
    _share_nothing(learners)
    models = live.models(learners)
    same = json.dumps([one.description for one in learners])
    here = config.pool.kind == "simulated" and config.pool.device == "cpu"
    sent = b"" if here else pickle.dumps((models, live.data(learners)))
    work = json.dumps({"dtype": config.run.dtype, "device": config.pool.device})
    spec = replace(_work(config, "distseq.live:there", work), blob=sent)
    return _tried(Fleet(tuple(learners), live.here(learners, models, config.run.dtype), spec, same))


def _share_nothing(learners: Sequence[Learner]) -> None:
    owners: dict[int, str] = {}
    for one in learners:
        for parameter in trained(one.model):
            if owners.setdefault(id(parameter), one.name) != one.name:
                raise ValueError(f"learners {owners[id(parameter)]} and {one.name} train the same parameters")


def _open(one: LearnerConfig) -> Dataset:
    try:
        return opened(one.data, one.data_args)
    except DataError as error:
        raise ValueError(f"learner {one.name}: {error}") from error


def _open_evaluation(one: LearnerConfig, data: Dataset) -> Dataset | None:
    if one.evaluation is None and one.evaluation_args:
        raise ValueError(f"learner {one.name}: evaluation_args without an evaluation")
    try:
        return held_out(data) if one.evaluation is None else opened(one.evaluation, one.evaluation_args)
    except DataError as error:
        raise ValueError(f"learner {one.name}: {error}") from error


def _seed(config: Config, m: int) -> int:
    return int(np.random.SeedSequence([config.run.seed, m]).generate_state(1)[0])


def _spec(config: Config, m: int, data: Dataset, evaluation: Dataset | None) -> dict[str, Any]:
    one = config.learner[m]
    spec: dict[str, Any] = {
        "model": one.model,
        "model_args": one.model_args,
        "data": one.data,
        "data_args": one.data_args,
    }
    spec |= {"seed": _seed(config, m), "fingerprint": data.fingerprint}
    spec |= {"evaluation": one.evaluation, "evaluation_args": one.evaluation_args}
    return {**spec, "evaluation_fingerprint": None if evaluation is None else evaluation.fingerprint}


def _learner(config: Config, m: int, data: Dataset, evaluation: Dataset | None) -> Learner:
    one, seed = config.learner[m], _seed(config, m)
    steps = config.run.steps if one.steps is None else one.steps
    model = build_model(one.model, one.model_args, seed, DTYPES[config.run.dtype])
    if not trained(model):
        raise ValueError(f"learner {one.name}: model {one.model!r} has no parameter that requires a gradient")
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    try:
        optimizer = torch_optimizer(one.optimizer, one.optimizer_args, named, one.groups)
    except ValueError as error:
        raise ValueError(f"learner {one.name}: {error}") from None
    if one.schedule is None and one.schedule_args:
        raise ValueError(f"learner {one.name}: schedule_args without a schedule")
    updates = steps // one.accumulate
    schedule = None if one.schedule is None else torch_schedule(one.schedule, one.schedule_args, optimizer, updates)
    return Learner(
        one.name,
        model,
        optimizer,
        data=data,
        evaluation=evaluation,
        batch=one.batch,
        steps=steps,
        seed=seed,
        clip=one.clip,
        schedule=schedule,
        accumulate=one.accumulate,
        ema=one.ema,
    )


def _try(fleet: Fleet, m: int) -> None:
    """The contract, a row, a step of the m-th learner and its checkpoint: a mistake shows before any worker starts. The step is
    taken back."""
    learner = fleet.learners[m]
    before = deepcopy(learner.snapshot())
    try:
        o = learner.open(0)
        payload = Payload(-1, m, 0, o.parameters, o.ids, o.seed, "uncoded", 1, version=-1)
        row = check_contract(fleet.task, payload, learner.model)
        for _ in range(learner.accumulate):
            learner.apply(row.astype(np.float64))
        if fleet.evaluated[m]:
            fleet.task.row(replace(payload, kind="evaluation"), np.zeros(1, np.int64), np.ones(1))
        encode(Checkpoint("", 0, {learner.name: 1}, {learner.name: learner.snapshot()}))
    except FloatingPointError as error:
        raise FloatingPointError(f"learner {learner.name}: {error}") from None
    except Exception as error:  # a user's model may raise anything
        message = " ".join(str(error).splitlines()[:1]).removeprefix(f"learner {learner.name}: ")
        kind = "" if isinstance(error, ValueError | FaultError) else f"{type(error).__name__}: "
        raise ValueError(f"learner {learner.name}: {kind}{message}") from error
    finally:
        learner.restore(before)
        learner.model.zero_grad()
