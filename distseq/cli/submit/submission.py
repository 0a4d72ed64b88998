"""`distseq submit`: a job file, or a command, run by a Ray cluster with this very distseq."""

import os
import secrets
import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distseq.cli.submit import working_dir as travel
from distseq.cli.submit.package import excludes, stage
from distseq.cluster.ray import check_installed
from distseq.cluster.ray.auth_token import client_token
from distseq.config.overrides import override
from distseq.config.schema import Config
from distseq.config.toml_file import load_config

RUNS = "~/distseq-runs"  # on the cluster: Ray deletes the job's working directory
# Seconds between the SIGTERM and the SIGKILL of a job that is stopped: time to write a checkpoint.
STOP_SECONDS = 60


@dataclass(frozen=True)
class Request:
    """What the cluster is asked to run: the id of the submission and a command for its shell."""

    job: str
    entrypoint: str
    run: str | None  # the run folder on the cluster; None = a command's own business


def request(
    config: Path | None, options: Mapping[str, str | bool], command: Sequence[str], working_dir: Path, python: str
) -> Request:
    """`distseq train` of a job file below `working_dir`, or of --resume, or the command. ValueError when it cannot run there.

    `options` are those of `distseq train` by name; True = a flag.
    """
    name = "job" if config is None else config.stem
    job = f"{''.join(c if c.isalnum() else '-' for c in name)}-{secrets.token_hex(4)}"
    if command:
        if config is not None or options:
            raise ValueError("submit takes either a job file with options of train, or a command after --: got both")
        return Request(job, shlex.join(command), None)
    if options.get("pool", "ray") != "ray":
        raise ValueError(f"a submitted job runs on the cluster's Ray: got --pool {options['pool']}")
    if config is None and "resume" not in options:
        raise ValueError("submit needs a job file, --resume RUN, or a command after --")
    run = str(options.get("resume") or options.get("out") or f"{RUNS}/{job}")
    if not run.startswith(("/", "~/")):
        raise ValueError(
            f"the run folder is one on the cluster, outside the job's working dir: got {run!r}; name / or ~/"
        )
    words = [] if config is None else [_below(config, working_dir)]
    for key, value in {**options, "pool": "ray", "address": "auto"}.items():
        if key not in ("out", "resume") and value is not False:
            words += [f"--{key.replace('_', '-')}"] + ([] if value is True else [str(value)])
    place = "--resume" if "resume" in options else "--out"
    line = shlex.join([python, "-m", "distseq", "train", *words])
    return Request(job, f"{line} {place} {_for_shell(run)}", run)


def _for_shell(path: str) -> str:
    """Quoted, but for the ~ of the home folder on the cluster."""
    return f"~/{shlex.quote(path[2:])}" if path.startswith("~/") else shlex.quote(path)


def _below(config: Path, working_dir: Path) -> str:
    path = config.resolve()
    if not path.is_relative_to(working_dir):
        raise ValueError(
            f"job file {config} is not in the working dir {working_dir}: give its folder with --working-dir"
        )
    return path.relative_to(working_dir).as_posix()


def submit(
    config: Path | None,
    options: Mapping[str, str | bool],
    command: Sequence[str],
    *,
    address: str,
    working_dir: Path,
    token_file: Path | None,
    python: str,
    wait: bool,
    write: Callable[[str], object],
    say: Callable[[str], object],
) -> int:
    """Run on the cluster; the job's exit code, or 0 at once without `wait`, when its id is all that is written.

    ValueError, with nothing submitted, for what is wrong here or refused there.
    """
    folder = working_dir.resolve()
    if not folder.is_dir():
        raise ValueError(f"working dir {working_dir} is no folder")
    wanted = request(config, options, command, folder, python)
    job = None if config is None else _with_files(load_config(config), options)
    token = client_token(os.environ, Path.home(), token_file)
    os.environ |= token.variables
    # Ray would take these before the address that it is given.
    for variable in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        os.environ.pop(variable, None)
    check_installed("distseq submit")
    from distseq.cluster.ray.jobs import JobServer

    left = excludes(folder)
    _check_folder(folder, left, config, job)
    server = JobServer(address, token.source)
    with tempfile.TemporaryDirectory(prefix="distseq-") as temporary:
        environment: dict[str, Any] = {
            "working_dir": str(folder),
            "py_modules": [str(stage(Path(temporary)))],
            "excludes": left,
            "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)},
        }
        server.submit(wanted.job, wanted.entrypoint, environment, say)
    if wanted.run is not None:
        say(f"run folder on the cluster's head: {wanted.run}")
    if not wait:
        write(f"{wanted.job}\n")
        return 0
    say(f"job {wanted.job}")
    return server.follow(wanted.job, write, say)


def _check_folder(folder: Path, left: list[str], path: Path | None, job: Config | None) -> None:
    """ValueError when what Ray would send of the working directory is too much for it, or too little for the job."""
    from distseq.cluster.ray.working_dir import LIMIT, contents

    sent = contents(folder, left)
    problem = travel.too_large(sent, LIMIT)
    if problem is not None:
        raise ValueError(f"working dir {folder} {problem}")
    if path is not None and _below(path, folder) not in sent:
        raise ValueError(f"job file {path} is left out by an ignore file of the working dir {folder}")
    for missing in () if job is None else travel.left_behind(job, sent, folder):
        raise ValueError(f"{missing} (--working-dir names another)")


def _with_files(config: Config, options: Mapping[str, str | bool]) -> Config:
    """With the options of train that may name a file."""
    return override(config, {name: options[name] for name in ("delays", "scheme") if name in options})
