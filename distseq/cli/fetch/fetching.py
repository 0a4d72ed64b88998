"""Fetches a run folder from where its driver ran, through the job server of a Ray cluster."""

import json
import secrets
import shlex
import tempfile
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from distseq.cli.fetch.receiver import check_target, receive
from distseq.cluster.ray import check_installed
from distseq.cluster.ray.metadata import RUN

if TYPE_CHECKING:
    from distseq.cluster.ray.jobs import JobServer

SCRIPT = files("distseq.cli.fetch") / "sender_script.py"
# Bytes of the run in one Ray job: its log, which Ray keeps and sends as one text, is at most a third longer.
WINDOW = 32 << 20
# Seconds for one window. Ray starts a job's driver within seconds, on a busy cluster within a minute.
SECONDS = 600.0


def fetch(
    run: str,
    out: Path | None,
    *,
    address: str,
    token_file: Path | None,
    insecure: bool,
    python: str,
    say: Callable[[str], object],
) -> Path:
    """Copies a run folder to `out`, by default runs/NAME, and returns its path.

    run: the id of the Ray job that made it, or its path on the cluster's head, which begins with / or ~/. ValueError, with
    nothing left behind, for a mistake; PoolError if the cluster fails, after which another try goes on with what is here.
    """
    if out is not None:
        check_target(out)
    check_installed("distseq fetch")
    from distseq.cluster.ray.jobs import JobServer
    from distseq.cluster.ray.session import Access

    server = JobServer(Access(address, str(token_file or ""), insecure))
    folder, node = (run, None) if run.startswith(("/", "~/")) else _made_by(server, run, say)
    target = Path("runs", Path(folder).name) if out is None else out
    say(f"fetching {folder} to {target}")
    receive(target, lambda have: _window(server, python, folder, node, have, say), say)
    return target


def _made_by(server: "JobServer", job: str, say: Callable[[str], object]) -> tuple[str, str | None]:
    """The run folder of a Ray job, and the node that its driver ran on."""
    details = server.details(job)
    folder = (details.metadata or {}).get(RUN) or _named(details.entrypoint)
    if folder is None:
        raise ValueError(
            f"Ray job {job} runs a command of its own: name the run folder on the cluster, from / or ~/ on"
        )
    if not details.status.is_terminal():
        say(f"Ray job {job} is still running: its run folder is fetched as it is now")
    return folder, details.driver_node_id


def _named(entrypoint: str) -> str | None:
    """The run folder that a command line names with --out or --resume."""
    try:
        words = shlex.split(entrypoint)
    except ValueError:
        return None
    for option in ("--out", "--resume"):
        if option in words[:-1]:
            return words[words.index(option) + 1]
    return None


def _window(
    server: "JobServer",
    python: str,
    folder: str,
    node: str | None,
    have: Mapping[str, int],
    say: Callable[[str], object],
) -> str:
    """What the sender's script writes when it runs on the cluster."""
    job = f"distseq-fetch-{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory(prefix="distseq-") as temporary:
        (Path(temporary) / SCRIPT.name).write_bytes(SCRIPT.read_bytes())
        (Path(temporary) / "state.json").write_text(json.dumps(dict(have)))
        line = f"{python} {SCRIPT.name} {shlex.quote(folder)} {WINDOW}"
        server.submit(job, line, {"working_dir": temporary}, say, node=node)
        return server.output(job, SECONDS)
