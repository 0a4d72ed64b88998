"""A fleet: all learners of a run, tried before any worker starts, and the Work that computes their rows."""

import json
import sys
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from distseq.cluster.system.cpus import usable_cpus
from distseq.cluster.work import WorkSpec
from distseq.config.schema import Config
from distseq.gradients.memory import check_room
from distseq.gradients.randomness import drawing
from distseq.gradients.work import GradientWork
from distseq.learners.learner import Learner, naming
from distseq.learners.snapshot import NOT_CUT
from distseq.learners.trials.kinds import kind
from distseq.learners.trials.temporal import try_temporal
from distseq.learners.trials.trying import Trial, named, try_learner
from distseq.models.data.text import Text

# CPU seconds that the trials of a fleet of small models may take together; each kind may take as long as three of its jobs.
SECONDS = 2.0


@dataclass(frozen=True)
class Fleet:
    """All learners of a run, with the Work that computes their rows here and on hosts."""

    learners: tuple[Learner, ...]
    work: GradientWork  # on this machine's CPU
    spec: WorkSpec  # the same Work, for hosts and their devices
    description: str  # JSON that a resumed run must match; part of the run's identity
    trials: tuple[Trial, ...] = field(default=(), compare=False)  # one for each kind of learner

    @property
    def evaluated(self) -> tuple[int, ...]:
        """Number of evaluation samples of each learner, of temporal ones of batches; 0 = it is not evaluated."""
        return tuple(_evaluated(one) for one in self.learners)

    def texts(self) -> dict[str, Text]:
        """The texts that learners are trained on, by the learner's name, where losses are in nats per character."""
        # A loss of the user's own may be anything: only per_sample_loss of our models is known to be nats per character.
        return {one.name: one.data for one in self.learners if isinstance(one.data, Text) and one.loss is None}

    def tried(self) -> list[str]:
        """What the trials have found, in lines: their number and cost first."""
        learners, kinds = len(self.learners), len(self.trials)
        samples = sorted({trial.samples for trial in self.trials})
        sizes = " to ".join(map(str, dict.fromkeys((samples[0], samples[-1]))))
        what = f"{learners} learner{'s' * (learners > 1)} of {kinds} kind{'s' * (kinds > 1)}"
        cost = f"{sum(trial.seconds for trial in self.trials):.2f} s"
        return [
            f"tried {what} against plain PyTorch on {sizes} samples each: {cost}",
            *(f"learner {trial.learner}: {note}" for trial in self.trials for note in trial.notes),
        ]


def _evaluated(one: Learner) -> int:
    if one.evaluation is None:
        return 0
    return len(one.evaluation) if one.stream_evaluation is None else one.stream_evaluation.batches


def work_spec(config: Config, target: str, args: str) -> WorkSpec:
    """How a host makes its Work: the callable `target` with `args`, a JSON object, and this process's folders to import from."""
    # Absolute, because a host's current folder is another one.
    paths = tuple(str(Path(folder).resolve()) for folder in sys.path)
    # Hosts share the cores of their machine with each other; what they compute has the bits of one thread in any case.
    args = json.dumps(json.loads(args) | {"threads": 1})
    return WorkSpec(target, args, paths, prefetch=config.pool.prefetch, stack=config.pool.stack)


def check_evaluations(learners: Sequence[Learner], every: int) -> None:
    """ValueError for a learner whose schedule needs evaluations that it does not have."""
    for one in learners:
        if one.awaits_evaluation and (not every or one.evaluation is None):
            lacks = f"[run] evaluate_every is {every}" if not every else "it has no evaluation data"
            raise ValueError(
                f"learner {one.name}: ReduceLROnPlateau is stepped with the loss of evaluations: give evaluation and "
                f"evaluate_every ({lacks})"
            )


def check_memory(learners: Sequence[Learner], config: Config) -> None:
    """ValueError, naming the largest, when the replicas of temporal learners' memory do not fit into this machine's."""
    sizes = {one.name: one.memory.bytes for one in learners if one.memory is not None}
    if not sizes:
        return
    # The driver's replica and a snapshot, and of each host of this machine a replica and a copy that is evaluated.
    hosts = {"local": config.pool.hosts or usable_cpus(), "simulated": 1}.get(config.pool.kind, 0)
    largest = next(one for one in learners if one.name == max(sizes, key=lambda name: sizes[name]))
    assert largest.memory is not None
    with naming(largest.name):
        check_room(largest.memory.nodes, sum(sizes.values()), 2 + 2 * hosts)


def tried(fleet: Fleet) -> Fleet:
    """The fleet after a trial of each kind of learner, which leaves the global random generators as they are.

    A mistake shows before any worker starts: ValueError or FloatingPointError naming the learner.
    """
    with drawing(torch.device("cpu")):
        trials = _trials(fleet)
    for learner, trial in zip(fleet.learners, trials, strict=True):
        learner.counts = trial.counts
        learner.cut = learner.cut_for(joint=trial.joint) if trial.draws else NOT_CUT
    return replace(fleet, trials=tuple({id(trial): trial for trial in trials}.values()))


def _trials(fleet: Fleet) -> list[Trial]:
    """The trial of each learner's kind."""
    kinds: dict[Hashable, int] = {}
    own: list[Hashable] = []
    for m, learner in enumerate(fleet.learners):
        source = named(learner, partial(fleet.work.problem, m)).source
        own.append(named(learner, partial(kind, learner, source)))
        kinds.setdefault(own[-1], m)
    seconds = SECONDS / len(kinds)
    trials = {
        key: try_temporal(fleet.work, fleet.learners[m], m)
        if fleet.learners[m].memory is not None
        else try_learner(fleet.work, fleet.learners[m], m, seconds, evaluates=fleet.evaluated[m] > 0)
        for key, m in kinds.items()
    }
    return [trials[key] for key in own]
