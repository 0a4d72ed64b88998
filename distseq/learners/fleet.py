"""A fleet: all learners of a run, tried before any worker starts, and the Work that computes their rows."""

import sys
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from distseq.cluster.errors import FaultError
from distseq.cluster.pool import Payload
from distseq.cluster.work import WorkSpec
from distseq.config.schema import Config
from distseq.gradients.work import GradientWork
from distseq.learners.contract import check_contract, draws
from distseq.learners.learner import Learner
from distseq.learners.state_files import pack
from distseq.models.data.text import Text


@dataclass(frozen=True)
class Fleet:
    """All learners of a run, with the Work that computes their rows here and on hosts."""

    learners: tuple[Learner, ...]
    work: GradientWork  # on this machine's CPU
    spec: WorkSpec  # the same Work, for hosts and their devices
    description: str  # JSON that a resumed run must match; part of the run's identity

    @property
    def evaluated(self) -> tuple[int, ...]:
        """Number of evaluation samples of each learner; 0 = it is not evaluated."""
        return tuple(0 if one.evaluation is None else len(one.evaluation) for one in self.learners)

    def texts(self) -> dict[str, Text]:
        """The texts that learners are trained on, by the learner's name, where losses are in nats per character."""
        # A loss of the user's own may be anything: only per_sample_loss of our models is known to be nats per character.
        return {one.name: one.data for one in self.learners if isinstance(one.data, Text) and one.loss is None}


def work_spec(config: Config, target: str, args: str) -> WorkSpec:
    """How a host makes its Work: the callable `target` with `args`, a JSON object, and this process's folders to import from."""
    # Absolute, because a host's current folder is another one.
    paths = tuple(str(Path(folder).resolve()) for folder in sys.path)
    return WorkSpec(target, args, paths, prefetch=config.pool.prefetch, stack=config.pool.stack)


def tried(fleet: Fleet) -> Fleet:
    """The fleet after a trial of each learner; without reading ahead if a learner draws random numbers."""
    for m in range(len(fleet.learners)):
        _try(fleet, m)
    # A data set that is read by another thread may draw from the generators that the loss draws from, in any order.
    apart = not any(draws(fleet.work.problem(m)) for m in range(len(fleet.learners)))
    return replace(fleet, spec=replace(fleet.spec, prefetch=fleet.spec.prefetch and apart))


def _try(fleet: Fleet, m: int) -> None:
    """Tries the m-th learner: its contract, one optimizer step, an evaluation row and a checkpoint; then undoes the step.

    A mistake shows before any worker starts. ValueError or FloatingPointError naming the learner.
    """
    learner = fleet.learners[m]
    # A copy, because a snapshot shares its tensors with the learner that steps below.
    before = deepcopy(learner.snapshot())
    try:
        o = learner.open(0)
        # Job and version -1 are never used by a run, so that the parameters loaded here are not taken for those of a job.
        payload = Payload(-1, m, 0, o.parameters, o.ids, o.seed, "uncoded", 1, version=-1)
        row = check_contract(fleet.work, payload, learner.model)
        # Until the optimizer steps once: only then do it, the schedule and the average run.
        for _ in range(learner.accumulate):
            learner.apply(row.astype(np.float64))
        if fleet.evaluated[m]:
            fleet.work.row(replace(payload, kind="evaluation"), np.zeros(1, np.int64), np.ones(1))
        # Now, because an optimizer's state has nothing in it before its first step: what a checkpoint cannot hold shows here,
        # and not after an hour.
        pack(learner.snapshot())
    except FloatingPointError as error:
        raise FloatingPointError(f"learner {learner.name}: {error}") from None
    except Exception as error:  # a user's model may raise anything
        message = " ".join(str(error).splitlines()[:1]).removeprefix(f"learner {learner.name}: ")
        kind = "" if isinstance(error, ValueError | FaultError) else f"{type(error).__name__}: "
        raise ValueError(f"learner {learner.name}: {kind}{message}") from error
    finally:
        learner.restore(before)
        # The trial's gradients are no part of a snapshot; a user's own code may look at .grad.
        learner.model.zero_grad()
