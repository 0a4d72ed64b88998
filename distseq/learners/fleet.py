"""All learners of a job, built from its configuration and tried out once, and the Work that computes their rows."""

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
    """The learners, the Work on this machine's CPU, the same Work for hosts and their devices, and what of it a resumed run
    must have too."""

    learners: tuple[Learner, ...]
    work: GradientWork
    spec: WorkSpec
    description: str

    @property
    def evaluated(self) -> tuple[int, ...]:
        """Samples that each learner is evaluated on; 0 = it is not."""
        return tuple(0 if one.evaluation is None else len(one.evaluation) for one in self.learners)

    def texts(self) -> dict[str, Text]:
        """The data of the learners whose data are text, and whose models say its loss themselves, by name."""
        return {one.name: one.data for one in self.learners if isinstance(one.data, Text) and one.loss is None}


def _work(config: Config, target: str, args: str) -> WorkSpec:
    paths = tuple(str(Path(folder).resolve()) for folder in sys.path)
    return WorkSpec(target, args, paths, prefetch=config.pool.prefetch, stack=config.pool.stack)


def _tried(fleet: Fleet) -> Fleet:
    for m in range(len(fleet.learners)):
        _try(fleet, m)
    # What a thread reads may draw from the generators too.
    apart = not any(draws(fleet.work.problem(m)) for m in range(len(fleet.learners)))
    return replace(fleet, spec=replace(fleet.spec, prefetch=fleet.spec.prefetch and apart))


def _try(fleet: Fleet, m: int) -> None:
    """The contract, a row, a step of the m-th learner and its checkpoint: a mistake shows before any worker starts. The step is
    taken back."""
    learner = fleet.learners[m]
    before = deepcopy(learner.snapshot())
    try:
        o = learner.open(0)
        payload = Payload(-1, m, 0, o.parameters, o.ids, o.seed, "uncoded", 1, version=-1)
        row = check_contract(fleet.work, payload, learner.model)
        for _ in range(learner.accumulate):
            learner.apply(row.astype(np.float64))
        if fleet.evaluated[m]:
            fleet.work.row(replace(payload, kind="evaluation"), np.zeros(1, np.int64), np.ones(1))
        pack(learner.snapshot())
    except FloatingPointError as error:
        raise FloatingPointError(f"learner {learner.name}: {error}") from None
    except Exception as error:  # a user's model may raise anything
        message = " ".join(str(error).splitlines()[:1]).removeprefix(f"learner {learner.name}: ")
        kind = "" if isinstance(error, ValueError | FaultError) else f"{type(error).__name__}: "
        raise ValueError(f"learner {learner.name}: {kind}{message}") from error
    finally:
        learner.restore(before)
        learner.model.zero_grad()
