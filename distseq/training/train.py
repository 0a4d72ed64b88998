"""`distseq.train`: trains the learners of a config file or learners made in Python, or resumes a run."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from distseq.cluster.ray import check_installed
from distseq.config.check import check
from distseq.config.names import check_run_folder
from distseq.config.overrides import override
from distseq.config.schema import Config
from distseq.config.silent import without_silent
from distseq.config.toml_file import from_dict, load_config
from distseq.learners.from_python import config_of_learners
from distseq.learners.learner import Learner
from distseq.training.run import Result, run
from distseq.training.threads import driver_threads


def train(
    config: Config | Mapping[str, Any] | str | Path | Sequence[Learner] | None = None,
    *,
    resume: str | Path | None = None,
    out: str | Path | None = None,
    console: Console | None = None,
    watchers: Iterable[Any] = (),
    **options: Any,
) -> Result:
    """Trains learners and returns them with the run's summary, or resumes a run that was stopped.

    config: the path of a config file, its tables as a mapping, a Config, or a list of `distseq.Learner`.
    resume: the folder of a run to resume, in place of `config`; for learners made in Python, beside them.
    out: the run folder, new or empty; by default runs/NAME-N.
    console: a rich Console to print to.
    watchers: observers of the run (`distseq.Observer`).
    options: replace keys of the config file (distseq.config.overrides), as the options of `distseq train` do; None = keep.

    ValueError, with nothing left behind, when the configuration is wrong; PoolError when the workers fail for good;
    UnwrittenError when the disk does not take the results; Stopped, which is a KeyboardInterrupt, after SIGINT, SIGTERM or
    SIGHUP; a second signal interrupts the end, too. However a run ends, its last state is kept, and the message says how to go
    on. What watchers raise is a warning; only KeyboardInterrupt and SystemExit end the run. Signals are handled in the main
    thread only: in another one, the program's own handlers hold.

    A learner that fails is stopped while the others go on, and is listed in the summary's `failures`; FailedError when all have
    failed.

    Learners made in Python are trained in place, from their current weights, after one step was tried on a copy. Workers get
    model, loss and data by value (cloudpickle), and import the modules that these refer to from this process's path.

    A resumed run continues from its newest intact checkpoint, with the same results as a run without a break. `options` may
    change everything but the seed. Learners made in Python must be made again in the same way. They are refused if names,
    shapes, frozen parameters and buffers, batches, seeds, clipping, accumulation, averaging, optimizer groups and settings,
    schedules, names of losses and samplers, or fingerprints of data differ. Changes in the code of a model, loss, collation,
    sampler or schedule function cannot be detected: it must be the same.

    >>> import distseq, torch
    >>> model = torch.nn.Linear(2, 1)
    >>> data = torch.utils.data.TensorDataset(torch.randn(64, 2), torch.randn(64, 1))
    >>> loss = lambda model, batch: (model(batch[0]) - batch[1]).square().mean(1)
    >>> line = distseq.Learner("line", model, torch.optim.SGD(model.parameters(), 0.1), data=data, batch=8, steps=5, loss=loss)
    >>> result = distseq.train([line], pool="simulated", workers=4, out="run", console=Console(quiet=True))
    >>> result.summary["jobs"], result.learners[0].model is model
    (5, True)
    """
    learners = _learners(config)
    if resume is not None and (config is None or learners is not None):
        if out is not None:
            raise ValueError("a resumed run writes to its own folder: out cannot be given with resume")
        # The run folder's own copy: the user's file may have changed since the run began.
        path, settings = Path(resume), load_config(Path(resume) / "config.toml")
        # A folder of an earlier version may hold keys that say nothing to its scheduler or pool.
        settings = without_silent(settings if learners is None else config_of_learners(learners, settings))
        settings = override(settings, options)
        check(settings, resumed=True)
        _check_packages(settings)
        with driver_threads():
            return run(
                settings, path, console or Console(markup=False, emoji=False), watchers, resume=True, learners=learners
            )
    # A config file with resume=: it could contradict the run's own, which is the one that holds.
    if resume is not None or config is None:
        raise ValueError("train needs either a configuration (or learners) or resume=RUN, the folder of a run")
    settings = override(_config(config) if learners is None else config_of_learners(learners), options)
    check(settings)
    _check_packages(settings)
    folder = Path(f"runs/{_name(config)}-1") if out is None else Path(out)
    check_run_folder(folder, [one.name for one in settings.learner])
    where = _name(config) if out is None else folder
    with driver_threads():
        return run(settings, where, console or Console(markup=False, emoji=False), watchers, learners=learners)


def _check_packages(config: Config) -> None:
    """ValueError or ImportError for a package without which the run would end at its first checkpoint, or at its pool."""
    import safetensors.torch  # noqa: F401

    if config.pool.kind == "ray":
        check_installed("pool ray")


def _name(config: Any) -> str:
    """The name of run folders: that of the config file, else "job"."""
    return Path(config).stem if isinstance(config, str | Path) else "job"


def _config(config: Any) -> Config:
    if isinstance(config, Config):
        return config
    return from_dict(config) if isinstance(config, Mapping) else load_config(Path(config))


def _learners(config: Any) -> tuple[Learner, ...] | None:
    """The learners, if `config` is a list of them; None for any other configuration. ValueError for a list of other things."""
    if config is None or isinstance(config, Config | Mapping | str | Path):
        return None
    learners = tuple(config) if isinstance(config, Iterable) else (config,)
    for one in learners:
        if not isinstance(one, Learner):
            raise ValueError(
                f"train takes a config file, its tables, or a list of distseq.Learner: got {type(one).__name__}"
            )
    return learners
