"""From a configuration to trained models: builds learners, pool and scheduler, runs the master, writes the run folder."""

import json
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from distseq.cluster.pool import Pool, PoolError
from distseq.cluster.profiles import delays
from distseq.cluster.simulated import SimulatedPool
from distseq.cluster.work import WorkSpec
from distseq.coding.gradient_code import check_precision
from distseq.coding.layout import layout
from distseq.coding.scheme import Scheme
from distseq.coding.schemes import parse
from distseq.config import Config, LearnerConfig, from_dict, load_config
from distseq.display import Display
from distseq.journal import Record
from distseq.learner import Learner, torch_optimizer
from distseq.master import Master
from distseq.observers import GradientCheck, Tally
from distseq.run_folder import RunFolder
from distseq.scheduling.closing import closing_rule
from distseq.scheduling.rounds import RoundScheduler
from distseq.simulation import check_delay
from distseq.summary import replays, summarize
from distseq.task import DTYPES, Task, build_model, trained


@dataclass(frozen=True)
class Result:
    """What a run leaves: trained learners, its folder and the summary that is also in summary.json."""

    learners: tuple[Learner, ...]
    folder: Path
    summary: dict[str, Any]


@dataclass(frozen=True)
class Fleet:
    """All learners of a job, and the Work that computes their rows on any host."""

    learners: tuple[Learner, ...]
    task: Task
    spec: WorkSpec


def build_fleet(config: Config) -> Fleet:
    """Open the data and build the models. ValueError naming what is missing or wrong."""
    learners, specs = [], []
    for m, one in enumerate(config.learner):
        learner, spec = _build(config, m, one)
        learners.append(learner)
        specs.append(spec)
    work: dict[str, Any] = {"learners": specs, "dtype": config.run.dtype}
    return Fleet(tuple(learners), Task(**work), WorkSpec("distseq.task:Task", json.dumps(work)))


def _build(config: Config, m: int, one: LearnerConfig) -> tuple[Learner, dict[str, Any]]:
    from distseq.models.data import open_dataset

    data = open_dataset(one.data, **one.data_args)
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


def _check_scheme(config: Config, scheme: Scheme, console: Console) -> None:
    check_delay(scheme.spec, scheme.delay, len(config.learner))
    for code in set(scheme.codes):
        check_precision(code, np.dtype(config.run.dtype))
    cut = layout(scheme.spec, scheme.n)
    empty = {one.name: cut.empty_parts(one.batch) for one in config.learner}
    if any(empty.values()):
        parts = ", ".join(f"{name} {count}" for name, count in empty.items() if count)
        console.print(f"warning: batches smaller than the number of parts of {scheme.spec} leave parts empty: {parts}")


def _pool(config: Config, fleet: Fleet) -> Pool:
    options = config.pool
    trace = delays(options.delays, options.workers, config.run.seed)
    if options.kind == "simulated":
        return SimulatedPool(trace, fleet.task, unfinished=options.unfinished, compute=options.compute)
    from distseq.cluster.ray_pool import RayPool

    return RayPool(options.workers, fleet.spec, hosts=options.hosts, address=options.address, delays=trace)


# option -> table and key of the job file
OPTIONS = {
    "steps": ("run", "steps"),
    "seed": ("run", "seed"),
    "scheme": ("scheduler", "scheme"),
    "closing": ("scheduler", "closing"),
    "cutoff": ("scheduler", "cutoff"),
    "mu": ("scheduler", "mu"),
    "pool": ("pool", "kind"),
    "workers": ("pool", "workers"),
    "address": ("pool", "address"),
    "delays": ("pool", "delays"),
    "unfinished": ("pool", "unfinished"),
}


def train(
    config: Config | Mapping[str, Any] | str | Path,
    *,
    out: str | Path | None = None,
    console: Console | None = None,
    watchers: Iterable[Any] = (),
    **options: Any,
) -> Result:
    """Train the learners of a job: a Config, the tables of one, or a job file's path.

    `out` is a new or empty folder, by default runs/NAME-N; `options` replace keys of the job (see OPTIONS; None = keep).
    `watchers` are observers (distseq.master.Observer). Raises ValueError, with nothing left behind, when the job is wrong,
    PoolError when the workers fail for good, FloatingPointError when a gradient is not finite.
    """
    name = Path(config).stem if isinstance(config, str | Path) else "job"
    if not isinstance(config, Config):
        config = from_dict(config) if isinstance(config, Mapping) else load_config(Path(config))
    config = override(config, options)
    folder = next(Path(f"runs/{name}-{k}") for k in count(1) if not Path(f"runs/{name}-{k}").exists())
    return run(config, folder if out is None else Path(out), console or Console(), watchers)


def override(config: Config, options: Mapping[str, Any]) -> Config:
    """The configuration with these OPTIONS in place of its own; steps hold for every learner."""
    for option, value in options.items():
        if option not in OPTIONS:
            raise ValueError(f"train has no option {option!r}; known: {', '.join(OPTIONS)}")
        if value is not None:
            table, key = OPTIONS[option]
            config = replace(config, **{table: replace(getattr(config, table), **{key: value})})
    if options.get("steps") is not None:
        config = replace(config, learner=tuple(replace(one, steps=None) for one in config.learner))
    return config


def run(config: Config, out: Path, console: Console, watchers: Iterable[Any] = ()) -> Result:
    """Train. ValueError, with nothing left behind, for a wrong configuration; PoolError when the pool gives up."""
    scheme = parse(config.scheduler.scheme, config.pool.workers)
    closing = closing_rule(config.scheduler.closing, cutoff=config.scheduler.cutoff, mu=config.scheduler.mu)
    late = not (config.pool.kind == "simulated" and config.pool.unfinished == "lost")
    scheduler = RoundScheduler(scheme, closing, late=late)
    delays(config.pool.delays, config.pool.workers, config.run.seed)
    fleet = build_fleet(config)
    _check_scheme(config, scheme, console)
    steps = {learner.name: learner.steps for learner in fleet.learners}
    texts = {one.name: fleet.task.problem(m).data for m, one in enumerate(config.learner)}
    texts = {name: data for name, data in texts.items() if hasattr(data, "unigram_entropy")}
    folder = RunFolder(out, config)
    one_pass = config.pool.kind == "simulated" and config.pool.compute == "decoded"
    tally, check = Tally(), GradientCheck(fleet.task, sum(steps.values()), config.run.checks, one_pass=one_pass)
    records: list[Record] = []
    with ExitStack() as stack:
        stack.callback(folder.journal.close)
        try:
            pool = _pool(config, fleet)
        except (PoolError, ValueError, ConnectionError):
            folder.discard()
            raise
        stack.callback(pool.close)
        display = stack.enter_context(Display(console, steps, frozenset(texts)))
        journal = _Both(folder, records)
        journal.write({"kind": "run", "config": asdict(config), "members": dict(pool.members())})
        seconds = Master(fleet.learners, scheduler, pool, journal, [tally, check, display, *watchers]).run()
    for learner in fleet.learners:
        folder.save_weights(learner.name, learner.state_dict())
    summary = summarize(config, fleet.learners, texts, tally, check, seconds)
    summary["replayed_seconds_per_job"] = replays(config, records, tally.jobs)
    folder.save_summary(summary)
    return Result(fleet.learners, folder.path, summary)


class _Both:
    """The journal's file, and its records in memory for the replay at the end."""

    def __init__(self, folder: RunFolder, records: list[Record]) -> None:
        self._folder, self._records = folder, records

    def write(self, record: Record) -> None:
        self._folder.journal.write(record)
        self._records.append(record)

    def close(self) -> None:
        self._folder.journal.close()
