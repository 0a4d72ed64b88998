"""Submits a config file or a command to a Ray cluster, together with the running distseq."""

import os
import secrets
import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distseq.cli.submit import working_dir as travel
from distseq.cli.submit.package import excludes, stage
from distseq.cluster.profiles import PROFILES
from distseq.cluster.ray import check_installed
from distseq.cluster.ray.auth_token import client_token
from distseq.cluster.ray.metadata import RUN
from distseq.coding.schemes.registry import own_class
from distseq.config.check import check
from distseq.config.options import OPTIONS
from distseq.config.overrides import override
from distseq.config.schema import Config
from distseq.config.toml_file import load_config

if TYPE_CHECKING:
    from distseq.cluster.ray.jobs import JobServer

# Where run folders are on the cluster's head: outside the Ray job's working directory, which Ray deletes.
RUNS = "~/distseq-runs"
# Seconds between SIGTERM and SIGKILL when a Ray job is stopped: time to write a checkpoint. Ray's default is 3.
STOP_SECONDS = 60


@dataclass(frozen=True)
class Request:
    """A Ray job to submit."""

    job: str  # its submission id
    entrypoint: str  # the command line that the cluster's shell runs
    run: str | None  # run folder on the cluster; None for a command of the user's own


def request(
    config: Path | None, options: Mapping[str, Any], command: Sequence[str], working_dir: Path, python: str
) -> Request:
    """The Ray job that trains a config file below `working_dir`, resumes a run, or runs a command.

    options: those of `distseq train` by name; True for a flag. ValueError for a combination that cannot run on a cluster.
    """
    # Readable in Ray's list of jobs, and unique: Ray refuses an id that was used before.
    name = "job" if config is None else config.stem
    job = f"{''.join(c if c.isalnum() else '-' for c in name)}-{secrets.token_hex(4)}"
    if command:
        if config is not None or options:
            raise ValueError("submit takes either a config file with options of train, or a command after --: got both")
        # Its run folder, if it has one, is its own business.
        return Request(job, shlex.join(command), None)
    if options.get("pool", "ray") != "ray":
        raise ValueError(f"submit trains on the cluster's workers, --pool ray: got --pool {options['pool']}")
    if config is None and "resume" not in options:
        raise ValueError("submit needs a config file, --resume RUN, or a command after --")
    run = str(options.get("resume") or options.get("out") or f"{RUNS}/{job}")
    # A relative path would lie in the Ray job's working directory, which Ray deletes.
    if not run.startswith(("/", "~/")):
        raise ValueError(
            f"the run folder is on the cluster, outside the working dir: its path must begin with / or ~/, got {run!r}"
        )
    words = [] if config is None else [_below(config, working_dir)]
    # On the cluster's head, "auto" is the cluster itself.
    for key, value in {**options, "pool": "ray", "address": "auto"}.items():
        if key not in ("out", "resume"):
            # Options travel as words of the command line, so that Ray's dashboard shows how the run was started.
            name = key.replace("_", "-")
            words += [f"--no-{name}"] if value is False else [f"--{name}"] + ([] if value is True else [str(value)])
    place = "--resume" if "resume" in options else "--out"
    line = shlex.join([python, "-m", "distseq", "train", *words])
    return Request(job, f"{line} {place} {_for_shell(run)}", run)


def _for_shell(path: str) -> str:
    """A path quoted for the shell, except for a leading ~, which the cluster's shell must expand."""
    return f"~/{shlex.quote(path[2:])}" if path.startswith("~/") else shlex.quote(path)


def _below(config: Path, working_dir: Path) -> str:
    path = config.resolve()
    if not path.is_relative_to(working_dir):
        raise ValueError(
            f"config file {config} is not in the working dir {working_dir}: give its folder with --working-dir"
        )
    return path.relative_to(working_dir).as_posix()


def submit(
    config: Path | None,
    options: Mapping[str, Any],
    command: Sequence[str],
    *,
    address: str,
    working_dir: Path,
    token_file: Path | None,
    insecure: bool,
    python: str,
    wait: bool,
    write: Callable[[str], object],
    say: Callable[[str], object],
) -> int:
    """Submits to the cluster at `address`; returns the exit code of the Ray job, or 0 at once without `wait`.

    write: takes the job's output (without `wait`, its id); say: takes lines about its progress. ValueError, with nothing
    submitted, for a mistake or for what the cluster refuses.
    """
    folder = working_dir.resolve()
    if not folder.is_dir():
        raise ValueError(f"working dir {working_dir} is not a folder")
    wanted = request(config, options, command, folder, python)
    # Here too, so that a mistake is told before anything is sent.
    settings = None if config is None else _checked(load_config(config), options)
    # Here, so that a file without a token is found before the working dir is looked at.
    client_token(os.environ, Path.home(), token_file)
    check_installed("distseq submit")
    from distseq.cluster.ray import runtime_env
    from distseq.cluster.ray.jobs import JobServer
    from distseq.cluster.ray.session import Access

    if settings is not None:
        runtime_env.check(settings.pool.runtime_env)
    _check_folder(folder, config, settings)
    server = JobServer(Access(address, str(token_file or ""), insecure))
    _send(server, wanted, folder, say)
    if wanted.run is not None:
        say(
            f"run folder on the cluster's head: {wanted.run}; to copy it: distseq fetch {wanted.job} --address {address}"
        )
    if not wait:
        write(f"{wanted.job}\n")
        return 0
    say(f"job {wanted.job}")
    # Until the Ray job ends; Ctrl-C stops it, with a checkpoint.
    return server.follow(wanted.job, write, say)


def _send(server: "JobServer", wanted: Request, folder: Path, say: Callable[[str], object]) -> None:
    """Uploads the working directory and the running distseq, and submits the Ray job."""
    with tempfile.TemporaryDirectory(prefix="distseq-") as temporary:
        environment: dict[str, Any] = {
            "working_dir": str(folder),
            "py_modules": [str(stage(Path(temporary)))],
            "excludes": excludes(folder),
            "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)},
        }
        # By which `distseq fetch` finds the run folder of a job.
        metadata = {} if wanted.run is None else {RUN: wanted.run}
        server.submit(wanted.job, wanted.entrypoint, environment, say, metadata=metadata)


def _checked(config: Config, options: Mapping[str, Any]) -> Config:
    """The configuration that is trained on the cluster. ValueError when the cluster would refuse it."""
    own = {name: value for name, value in options.items() if name in OPTIONS}
    settings = override(config, own | {"pool": "ray"})
    pool, scheduler = settings.pool, settings.scheduler
    # A trace or a scheme of one's own is in the working dir, or on the cluster: `left_behind` looks for it.
    if pool.delays.partition(":")[0] not in PROFILES:
        pool = replace(pool, delays="none")
    if own_class(scheduler.scheme) is not None:
        scheduler = replace(scheduler, scheme="uncoded")
    check(replace(settings, pool=pool, scheduler=scheduler))
    return settings


def _check_folder(folder: Path, path: Path | None, settings: Config | None) -> None:
    """ValueError when the working directory is too large for Ray to send, or lacks files that the config file names."""
    from distseq.cluster.ray.working_dir import LIMIT, contents

    sent = contents(folder, excludes(folder))
    problem = travel.too_large(sent, LIMIT)
    if problem is not None:
        raise ValueError(f"working dir {folder} {problem}")
    if path is not None and _below(path, folder) not in sent:
        raise ValueError(
            f"config file {path} is left out by an ignore file of the working dir {folder}, or is never sent"
        )
    for missing in () if settings is None else travel.left_behind(settings, sent, folder):
        raise ValueError(f"{missing}: send a folder that holds it with --working-dir")
