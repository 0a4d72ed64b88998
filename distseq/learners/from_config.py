"""Builds the fleet described by a configuration."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from distseq.config.schema import Config, LearnerConfig
from distseq.gradients.data import open_data
from distseq.gradients.problem import DTYPES, build_model, model_factory, trained
from distseq.gradients.threads import one_thread
from distseq.gradients.work import GradientWork
from distseq.learners.fleet import Fleet, check_evaluations, check_memory, tried, work_spec
from distseq.learners.learner import Learner, check_learner_model
from distseq.learners.optimizers.by_name import torch_optimizer
from distseq.learners.optimizers.schedules import torch_schedule
from distseq.models.data.dataset import Dataset
from distseq.models.data.events.dataset import Events
from distseq.models.data.held_out import held_out
from distseq.models.temporal import TemporalModel


@one_thread()
def build_fleet(config: Config) -> Fleet:
    """Opens the data, builds the models and tries one step of each learner. ValueError naming what is missing or wrong."""
    for one in config.learner:
        if one.live:
            raise ValueError(
                f"learner {one.name}: its model was made in Python and cannot be imported: resume with the learners, "
                "distseq.train([...], resume=RUN)"
            )
    # Before anything that a configuration names is called.
    for one in config.learner:
        with _named(one):
            model_factory(one.model)
    # All data before any model: what is missing is told at once, models may take long to build.
    data = [_open(one) for one in config.learner]
    evaluation = [_open_evaluation(one, d) for one, d in zip(config.learner, data, strict=True)]
    specs = [_spec(config, m, data[m], evaluation[m]) for m in range(len(data))]
    work: dict[str, Any] = {"learners": specs, "dtype": config.run.dtype}
    learners = tuple(_learner(config, m, data[m], evaluation[m]) for m in range(len(data)))
    check_evaluations(learners, config.run.evaluate_every)
    check_memory(learners, config)
    # The device is left out of the description: a run may be resumed on another one.
    hosts = json.dumps(work | {"device": config.pool.device})
    spec = work_spec(config, "distseq.gradients.work:GradientWork", hosts)
    return tried(Fleet(learners, GradientWork(**work), spec, json.dumps(work)))


@contextmanager
def _named(one: LearnerConfig) -> Iterator[None]:
    """Names the learner in a ValueError, and in a KeyboardInterrupt."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"learner {one.name}: {error}") from error
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"learner {one.name}: {stop}" if str(stop) else "") from None


def _open(one: LearnerConfig) -> Dataset:
    with _named(one):
        return open_data(one.data, one.data_args)


def _open_evaluation(one: LearnerConfig, data: Dataset) -> Dataset | None:
    with _named(one):
        return held_out(data) if one.evaluation is None else open_data(one.evaluation, one.evaluation_args)


def _seed(config: Config, m: int) -> int:
    """The seed of the m-th learner: hashed, so that neighbouring run seeds and learners share no random numbers."""
    return int(np.random.SeedSequence([config.run.seed, m]).generate_state(1)[0])


def _spec(config: Config, m: int, data: Dataset, evaluation: Dataset | None) -> dict[str, Any]:
    one = config.learner[m]
    spec: dict[str, Any] = {
        "model": one.model,
        "model_args": _model_args(one, data),
        "data": one.data,
        "data_args": one.data_args,
    }
    spec |= {"seed": _seed(config, m), "fingerprint": data.fingerprint}
    spec |= {"evaluation": one.evaluation, "evaluation_args": one.evaluation_args}
    return {**spec, "evaluation_fingerprint": None if evaluation is None else evaluation.fingerprint}


def _model_args(one: LearnerConfig, data: Dataset) -> dict[str, Any]:
    """The model's arguments; a temporal model is told how many features the messages of its stream have."""
    if isinstance(data, Events) and model_factory(one.model) is TemporalModel:
        return {"features": data.stream.features, **one.model_args}
    return dict(one.model_args)


def _learner(config: Config, m: int, data: Dataset, evaluation: Dataset | None) -> Learner:
    one, seed = config.learner[m], _seed(config, m)
    steps = config.run.steps if one.steps is None else one.steps
    with _named(one):
        model = build_model(one.model, _model_args(one, data), seed, DTYPES[config.run.dtype])
    check_learner_model(one.name, model)
    # An optimizer over no parameters would raise, but without a word about the learner.
    if not trained(model):
        raise ValueError(f"learner {one.name}: model {one.model!r} has no parameter that requires a gradient")
    with _named(one):
        optimizer = torch_optimizer(one.optimizer, one.optimizer_args, model, one.groups)
        # The schedule is stepped with the optimizer, once in `accumulate` jobs.
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
        blocks=one.blocks,
    )
