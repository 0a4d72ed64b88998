"""The trial of a learner before any worker starts: contract, gradients, an evaluation, an optimizer step and a checkpoint."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from distseq.cluster.errors import DrawsError, FaultError
from distseq.cluster.pool import Payload
from distseq.cluster.system.cpu_time import timed
from distseq.gradients.problem import Problem, load_vector, trained
from distseq.gradients.work import GradientWork
from distseq.learners.learner import Learner
from distseq.learners.randomness import BLOCKS, is_joint
from distseq.learners.state_files import pack
from distseq.learners.trials.contract import check_contract
from distseq.learners.trials.copies import CopyError, beside_state, copied_learner, copied_model
from distseq.learners.trials.kinds import further
from distseq.learners.trials.plain import plain_problem
from distseq.learners.trials.trial import compare, reaches

T = TypeVar("T")
# Samples that are tried beside the batch of the first step, and jobs' time that all of it may take.
FURTHER, JOBS = 64, 3
NAMED = 8  # parameters that a note names at most


@dataclass(frozen=True)
class Trial:
    """What the trial of a learner has found."""

    learner: str
    samples: int
    seconds: float  # CPU time
    notes: tuple[str, ...] = ()  # what a user should know, one line each
    counts: bool = False  # its loss returns counts
    draws: bool = False  # it draws random numbers
    joint: bool = False  # all that it draws is dropout of tensors with the batch first


def try_learner(work: GradientWork, learner: Learner, m: int, seconds: float, *, evaluates: bool) -> Trial:
    """Tries the m-th learner of `work`; further samples than the first batch as far as they fit into `seconds` or three jobs.

    ValueError or FloatingPointError naming the learner for whatever is wrong with it.
    """
    trying = _Trying(work, learner, m)
    (samples, notes), spent = timed(lambda: named(learner, lambda: trying.run(seconds, evaluates)))
    return Trial(
        learner.name, samples, spent, tuple(notes), work.counted(m), trying.joint is not None, bool(trying.joint)
    )


def named(learner: Learner, action: Callable[[], T]) -> T:
    """The action's result; its errors as one line that names the learner."""
    try:
        return action()
    except FloatingPointError as error:
        raise FloatingPointError(f"learner {learner.name}: {error}") from None
    except (Exception, SystemExit) as error:  # a user's model may raise anything
        message = " ".join(str(error).splitlines()[:1]).removeprefix(f"learner {learner.name}: ")
        kind = "" if isinstance(error, ValueError | FaultError) else f"{type(error).__name__}: "
        raise ValueError(f"learner {learner.name}: {kind}{message}") from error


class _Trying:
    """One learner's trial, at ever new parameters of its copy."""

    def __init__(self, work: GradientWork, learner: Learner, m: int) -> None:
        self._work, self._learner, self._m, self._notes = work, learner, m, list[str]()
        self._version, self._by_pickle = 0, False
        # Whether dropout of tensors with the batch first is all that it draws; None = it was not seen to draw anything.
        self.joint: bool | None = None

    def run(self, seconds: float, evaluates: bool) -> tuple[int, list[str]]:
        """The number of samples tried, and notes."""
        try:
            return self._run(seconds, evaluates)
        except DrawsError:
            # Any of its samples may have drawn; from here on every row is computed in blocks.
            self.joint = is_joint(self._work, self._payload(self._learner))
            self._notes, self._by_pickle = [], False
            return self._run(seconds, evaluates)

    def _run(self, seconds: float, evaluates: bool) -> tuple[int, list[str]]:
        learner, first = self._learner, self._payload(self._learner)
        check_contract(self._work, first, learner.model)
        if evaluates:
            one = replace(first, kind="evaluation", ids=np.zeros(1, np.int64), blocks=min(1, first.blocks))
            self._work.row(one, one.ids, np.ones(1))
        copy, ids = self._copy(), learner.ids(0)
        copy.counts = self._work.counted(self._m)
        (total, missing), spent = timed(lambda: compare(self._work, self._payload(copy), plain_problem(copy)))
        if copy is not learner:
            self._step(copy, total)
        more = further(len(learner.data), self._room(spent, len(ids), seconds))
        if len(more):
            _, still = compare(self._work, self._payload(copy, more), self._fresh(copy))
            missing = [name for name in missing if name in still]
        if missing:
            names = ", ".join(missing[:NAMED]) + (f" and {len(missing) - NAMED} more" if len(missing) > NAMED else "")
            self._notes.append(f"its loss does not reach {names}: left out of optimizer steps, as in plain PyTorch")
        return len(ids) + len(more), self._notes

    def _copy(self) -> Learner:
        """A copy to step, or the learner itself where it cannot be copied: then only gradients are tried."""
        try:
            copy = copied_learner(self._learner)
            if reaches(plain_problem(copy)):
                return copy
            # The loss holds the user's own model, by a closure: pickled with it, it holds the copy.
            self._learner.model.zero_grad()
            self._by_pickle = True
            return copied_learner(self._learner, by_pickle=True)
        except CopyError as error:
            self._notes.append(f"{error}: its first optimizer step is not tried")
            return self._learner

    def _fresh(self, copy: Learner) -> Problem:
        """A model that has never computed anything, with the parameters of the copy's next step.

        What the models of the Work have kept of the first parameters shows beside it.
        """
        if copy is self._learner:
            return plain_problem(copy)
        model, loss = copied_model(self._learner.model, self._learner.loss, by_pickle=self._by_pickle)
        load_vector(trained(model), copy.publish())
        return replace(plain_problem(copy), model=model, parameters=trained(model), loss=loss)

    def _step(self, copy: Learner, total: np.ndarray) -> None:
        """Makes the copy's first optimizer step, and packs a checkpoint of it."""
        # Until the optimizer steps once: only then do it, the schedule and the average run.
        for _ in range(copy.accumulate):
            copy.apply(total)
        # Now, because an optimizer's state has nothing in it before its first step: what a checkpoint cannot hold shows here,
        # and not after an hour.
        pack(copy.snapshot())
        beside = beside_state(self._learner.optimizer, copy.optimizer)
        if beside:
            self._notes.append(
                f"its optimizer keeps {', '.join(beside)} beside its state_dict(), which checkpoints do not hold: a resumed run "
                "begins with a new one"
            )

    def _room(self, spent: float, samples: int, seconds: float) -> int:
        """The number of further samples for which there is time, after the comparison of a batch took `spent` CPU seconds."""
        # The comparison computes the batch once for the reference, and 5/4 times in rows.
        most = max(seconds, JOBS * spent / 2.25)
        return min(FURTHER, int(samples * max(0.0, most - spent) / max(spent, 1e-9)))

    def _payload(self, learner: Learner, ids: np.ndarray | None = None) -> Payload:
        """The payload of the learner's first step, or of other samples."""
        o = learner.open(0)
        ids = o.ids if ids is None else ids
        blocks = 0 if self.joint is None else min(BLOCKS, len(ids))
        # Job and version are never used by a run, so that the parameters loaded here are not taken for those of a job.
        self._version -= 1
        payload = Payload(-1, self._m, 0, o.parameters, ids, o.seed, "uncoded", 1, version=self._version)
        return replace(payload, blocks=blocks, joint=bool(self.joint))
