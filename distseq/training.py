"""From a configuration to trained models: builds fleet, pool and scheduler, runs the master, writes the run folder.

A run that is resumed goes on in its folder, from its newest whole checkpoint.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from distseq.checkpoint import identity
from distseq.checkpointer import Checkpointer
from distseq.choosing import ahead_of, exact_of, name_of, scheduler_of, scheme_of
from distseq.cluster.errors import PoolError
from distseq.cluster.profiles import delays
from distseq.cluster.signals import Stopped, StopRequest
from distseq.cluster.trace import Trace
from distseq.coding.gradient_code import check_precision
from distseq.coding.layout import layout
from distseq.coding.scheme import Scheme
from distseq.config import Config, from_dict, load_config
from distseq.display import Display
from distseq.evaluation import Evaluate
from distseq.failing import FailedError
from distseq.fleet import Fleet, build_fleet, live_config, live_fleet
from distseq.journal import MemoryJournal, Tee
from distseq.learner import Learner
from distseq.master import Master
from distseq.observers import GradientCheck, Metered, Tally
from distseq.options import override
from distseq.pools import make_pool
from distseq.replay import prepare
from distseq.resuming import Start, complete, resumed
from distseq.run_folder import RunFolder
from distseq.scheduling.rounds import check_delay
from distseq.scheduling.scheduler import Scheduler
from distseq.summary import replays, summarize

NOT_KEPT = "its last steps could not be kept"


@dataclass(frozen=True)
class Result:
    """What a run leaves: trained learners, its folder and the summary that is also in summary.json."""

    learners: tuple[Learner, ...]
    folder: Path
    summary: dict[str, Any]


def check_scheme(scheme: Scheme, models: int, dtype: str) -> None:
    """ValueError when the scheme's delay is too long for so many models, or its code too imprecise for rows of the dtype."""
    check_delay(scheme, models)
    for code in set(scheme.codes):
        check_precision(code, np.dtype(dtype))


def _warn_of_empty_parts(config: Config, scheme: Scheme, console: Console) -> None:
    cut = layout(scheme.spec, scheme.n)
    empty = {one.name: cut.empty_parts(one.batch) for one in config.learner}
    if any(empty.values()):
        parts = ", ".join(f"{name} {count}" for name, count in empty.items() if count)
        console.print(
            f"warning: batches smaller than the number of parts of {name_of(config)} leave parts empty: {parts}"
        )


def train(
    config: Config | Mapping[str, Any] | str | Path | Sequence[Learner] | None = None,
    *,
    resume: str | Path | None = None,
    out: str | Path | None = None,
    console: Console | None = None,
    watchers: Iterable[Any] = (),
    **options: Any,
) -> Result:
    """Train the learners of a job: a Config, the tables of one, a job file's path, or a list of `distseq.Learner`.

    `out` is a new or empty folder, by default runs/NAME-N; `options` replace keys of the job (see distseq.options; None = keep).
    `watchers` are observers (distseq.roles.Observer). Raises ValueError, with nothing left behind, when the job is wrong,
    PoolError when the workers fail for good, Stopped (distseq.cluster.signals) after SIGINT or SIGTERM. A learner that
    fails is stopped, the others go on: the summary's `failures` name it. FailedError when all have failed.

    Learners made in Python are trained in place, from their weights as they are; before, one step is tried and taken back.
    Workers get model, loss and data by value, pickled with cloudpickle, and import from this process's path what those refer to
    in modules.

    `resume`, in place of a job, is the folder of a run that was stopped: it goes on where its newest whole checkpoint is,
    under its configuration and `options` (all but the seed), with the same result as a run without a break. A run of learners
    made in Python needs them again, beside `resume`, made in the same way. They are refused when names, shapes, frozen
    parameters and buffers, batches, seeds, clipping, accumulation, averaging, groups and settings of optimizers and schedules,
    names of losses and samplers, or fingerprints of data differ. What the code of a model, loss, collation or sampler does, and
    how a function given to a schedule looks, cannot be told: they must be the same.
    """
    learners = _learners(config)
    if resume is not None and (config is None or learners is not None):
        if out is not None:
            raise ValueError("a resumed run goes on in its own folder: give no other one to write to")
        path, job = Path(resume), load_config(Path(resume) / "config.toml")
        job = override(job if learners is None else live_config(learners, job), options)
        return run(job, path, console or Console(), watchers, resume=True, learners=learners)
    if resume is not None or config is None:
        raise ValueError("train needs either a job or the run folder to resume")
    name = Path(config).stem if isinstance(config, str | Path) else "job"
    folder = next(Path(f"runs/{name}-{k}") for k in count(1) if not Path(f"runs/{name}-{k}").exists())
    job = override(_config(config) if learners is None else live_config(learners), options)
    return run(job, folder if out is None else Path(out), console or Console(), watchers, learners=learners)


def _config(job: Any) -> Config:
    if isinstance(job, Config):
        return job
    return from_dict(job) if isinstance(job, Mapping) else load_config(Path(job))


def _learners(job: Any) -> tuple[Learner, ...] | None:
    """The learners of a job that is a list of them; None for one that is not. ValueError for a list of anything else."""
    if job is None or isinstance(job, Config | Mapping | str | Path):
        return None
    learners = tuple(job) if isinstance(job, Iterable) else (job,)
    for one in learners:
        if not isinstance(one, Learner):
            raise ValueError(f"train takes a job or a list of distseq.Learner: got a {type(one).__name__}")
    return learners


@dataclass(frozen=True)
class Job:
    """All of a run that can be wrong, checked and built before anything is written or started."""

    config: Config
    scheduler: Scheduler
    trace: Trace
    fleet: Fleet
    identity: str
    start: Start

    @property
    def steps(self) -> dict[str, int]:
        return {learner.name: learner.steps for learner in self.fleet.learners}


def _prepare(config: Config, out: Path, console: Console, resume: bool, learners: Sequence[Learner] | None) -> Job:
    scheme = scheme_of(config)
    trace = delays(config.pool.delays, config.pool.workers, config.run.seed)
    for n in range(1, scheme.n + 1) if config.pool.elastic else [scheme.n]:
        check_scheme(scheme.on(n), len(config.learner), config.run.dtype)
    fleet = build_fleet(config) if learners is None else live_fleet(config, learners)
    scheduler = scheduler_of(config, max(len(learner.publish()) for learner in fleet.learners))
    if config.scheduler.kind == "auto":
        prepare()
    _warn_of_empty_parts(config, scheme, console)
    own = identity(config, fleet.same)
    start = resumed(out, own, fleet, console) if resume else Start((0,) * len(fleet.learners))
    return Job(config, scheduler, trace, fleet, own, start)


def run(
    config: Config,
    out: Path,
    console: Console,
    watchers: Iterable[Any] = (),
    *,
    resume: bool = False,
    learners: Sequence[Learner] | None = None,
) -> Result:
    """Train; `learners`, where they are made in Python, are those that `config` describes.

    ValueError, with nothing left behind, for a wrong configuration; PoolError when the pool gives up, FailedError when every
    learner has failed.
    """
    job = _prepare(config, out, console, resume, learners)
    if resume and complete(out, config, job.start):
        console.print(f"nothing to do: {out} is complete, {sum(job.start.done)} jobs", highlight=False, soft_wrap=True)
        return Result(job.fleet.learners, out, json.loads((out / "summary.json").read_bytes()))
    one_pass = config.pool.kind == "simulated" and config.pool.compute == "decoded"
    check = GradientCheck(
        job.fleet.task,
        list(job.steps.values()),
        config.run.checks,
        lambda m: job.fleet.learners[m].publish(),
        one_pass=one_pass,
    )
    tally, kept, texts = Tally(), MemoryJournal(), job.fleet.texts()
    tally.remember(job.start.past)
    folder = RunFolder.resumed(out) if resume else RunFolder(out, config)
    display = Display(console, job.steps, frozenset(texts), dict(zip(job.steps, job.start.done, strict=True)))
    seconds = _drive(job, folder, kept, console, display, [tally, check, display, *watchers], resume)
    for learner in job.fleet.learners:
        for name, state in learner.weights().items() if learner.name not in tally.failed else ():
            folder.save_weights(name, state)
    plain = {one.name: texts[one.name] for one in config.learner if one.name in texts and one.evaluation is None}
    summary = summarize(config, job.fleet.learners, plain, tally, check, job.start.past.seconds + seconds)
    folder.save_summary(summary)
    summary |= replays(config, kept.records, tally.jobs)
    folder.save_summary(summary)
    if len(tally.failed) == len(job.fleet.learners):
        raise FailedError(list(tally.failed.values()), str(folder.path))
    return Result(job.fleet.learners, folder.path, summary)


def _drive(
    job: Job,
    folder: RunFolder,
    kept: MemoryJournal,
    console: Console,
    display: Display,
    observers: Sequence[Any],
    resume: bool,
) -> float:
    """Start the pool, run the master to its end or to a request to stop, and release everything; seconds of pool time."""
    config, start, learners = job.config, job.start, job.fleet.learners
    request = StopRequest()
    with ExitStack() as stack:
        stack.callback(request.restore)
        stack.callback(folder.journal.close)
        try:
            pool = make_pool(config, job.fleet, job.trace)
        except BaseException:
            folder.discard()
            raise
        stack.callback(pool.close)
        # After the pool: Ray sets handlers of its own.
        request.install()
        journal = Tee(folder.journal, kept)
        record = {"config": asdict(config), "members": dict(pool.members()), "exact": exact_of(config)}
        if resume:
            folder.go_on(config)
            journal.write({"kind": "resume", "steps": dict(zip(job.steps, start.done, strict=True)), **record})
        else:
            journal.write({"kind": "run", **record})
        if config.pool.kind == "ray":
            from distseq.cluster.ray_meter import RunMeter

            observers = [*observers, Metered(RunMeter())]
        stack.enter_context(display)
        keeper = Checkpointer(folder.checkpoints, learners, job.identity, config.checkpoint, console, request.asked)
        stack.callback(keeper.close)
        keeper.begin(start.done, start.next_job, resumed=resume)
        master = Master(
            learners,
            job.scheduler,
            pool,
            journal,
            observers,
            first_job=start.next_job,
            done=start.done,
            keeper=keeper,
            evaluate=Evaluate(job.fleet.evaluated, config.run.evaluate_every),
            ahead=ahead_of(config),
        )
        return _to_the_end(master, keeper, sum(job.steps.values()), request, _again(config, folder.path))


def _again(config: Config, out: Path) -> str:
    live = any(one.live for one in config.learner)
    return f"go on with: {f'distseq.train([...], resume={str(out)!r})' if live else f'distseq train --resume {out}'}"


def _to_the_end(master: Master, keeper: Checkpointer, jobs: int, request: StopRequest, again: str) -> float:
    """Run the master; whatever ends it, its last state is kept, unless an error may have come in the middle of a step."""
    try:
        seconds = master.run()
    except PoolError as error:
        raise PoolError(f"{error}; {again}" if keeper.finish() else str(error)) from error
    kept = keeper.finish()
    if master.stopped:
        raise Stopped(f"stopped after {keeper.jobs} of {jobs} jobs; {again if kept else NOT_KEPT}", request.code)
    return seconds
