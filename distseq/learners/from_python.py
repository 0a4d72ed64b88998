"""Describes learners made in Python as a configuration, and builds a fleet of them."""

import json
import pickle
from collections.abc import Iterable, Sequence
from dataclasses import replace

from distseq.config.schema import DTYPES as DTYPE_NAMES
from distseq.config.schema import LIVE, Config, LearnerConfig
from distseq.gradients.problem import trained
from distseq.learners.fleet import Fleet, check_evaluations, check_memory, tried, work_spec
from distseq.learners.learner import Learner


def config_of_learners(learners: Sequence[Learner], config: Config | None = None) -> Config:
    """A configuration that describes learners made in Python; everything else as in `config`, or its defaults.

    The dtype is that of the learners' parameters.
    """
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
        blocks=one.blocks,
    )


def _dtype(learners: Iterable[Learner]) -> str:
    """The one dtype of all trained parameters. ValueError when there are several, or one that rows cannot have."""
    # One learner per dtype is enough for a message that tells which one to change.
    found = {str(p.dtype).rpartition(".")[2]: one.name for one in learners for p in trained(one.model)}
    if len(found) != 1 or not found.keys() <= set(DTYPE_NAMES):
        got = ", ".join(f"{dtype} in {name}" for dtype, name in found.items())
        raise ValueError(
            f"the parameters of all learners must have the same dtype, {' or '.join(DTYPE_NAMES)}: got {got}"
        )
    return found.popitem()[0]


def fleet_of_learners(config: Config, learners: Sequence[Learner]) -> Fleet:
    """Builds a fleet of learners made in Python; one of each kind is tried on a copy.

    config: their description, from `config_of_learners`; its number of steps replaces theirs. ValueError for a broken contract,
    learners that share parameters, or a model, loss or data that cannot be pickled.
    """
    from distseq.learners import pickling

    for learner, one in zip(learners, config.learner, strict=True):
        learner.steps = config.run.steps if one.steps is None else one.steps
    _share_nothing(learners)
    check_evaluations(learners, config.run.evaluate_every)
    check_memory(learners, config)
    models = pickling.models(learners)
    same = json.dumps([one.description for one in learners])
    # A simulated pool computes in this process, with the Work below: nothing is sent, and data need not be picklable.
    here = config.pool.kind == "simulated" and config.pool.device == "cpu"
    sent = b"" if here else pickle.dumps((models, pickling.data(learners)))
    work = json.dumps({"dtype": config.run.dtype, "device": config.pool.device})
    spec = replace(work_spec(config, "distseq.learners.pickling:work_on_host", work), blob=sent)
    return tried(Fleet(tuple(learners), pickling.work_on_driver(learners, models, config.run.dtype), spec, same))


def _share_nothing(learners: Sequence[Learner]) -> None:
    """ValueError for two learners with a parameter in common: each would step it with gradients of its own job only."""
    owners: dict[int, str] = {}
    for one in learners:
        for parameter in trained(one.model):
            if owners.setdefault(id(parameter), one.name) != one.name:
                raise ValueError(f"learners {owners[id(parameter)]} and {one.name} train the same parameters")
