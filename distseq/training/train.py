"""`distseq.train`: from a config file or learners made in Python to trained models."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from rich.console import Console

from distseq.config.overrides import override
from distseq.config.schema import Config
from distseq.config.toml_file import from_dict, load_config
from distseq.learners.from_python import config_of_learners
from distseq.learners.learner import Learner
from distseq.training.run import Result, run


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

    `out` is a new or empty folder, by default runs/NAME-N; `options` replace keys of the config file (distseq.config.overrides;
    None = keep). `watchers` are observers (distseq.engine.interfaces.Observer). Raises ValueError, with nothing left behind, when
    the job is wrong, PoolError when the workers fail for good, Stopped (distseq.cluster.system.stop_signals) after SIGINT or
    SIGTERM. A learner that fails is stopped, the others go on: the summary's `failures` name it. FailedError when all failed.

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
        job = override(job if learners is None else config_of_learners(learners, job), options)
        return run(job, path, console or Console(), watchers, resume=True, learners=learners)
    if resume is not None or config is None:
        raise ValueError("train needs either a job or the run folder to resume")
    name = Path(config).stem if isinstance(config, str | Path) else "job"
    folder = next(Path(f"runs/{name}-{k}") for k in count(1) if not Path(f"runs/{name}-{k}").exists())
    job = override(_config(config) if learners is None else config_of_learners(learners), options)
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
