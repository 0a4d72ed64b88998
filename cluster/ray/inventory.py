"""Runs inventory_script.py on a cluster: as a job through its dashboard's http address, or as a driver of this machine's."""

import json
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distseq.cluster.ray.auth_token import refusal
from distseq.cluster.ray.inventory_script import MARK
from distseq.cluster.ray.jobs import JobServer, connect

SCRIPT = Path(__file__).with_name("inventory_script.py")
DRIVER_SECONDS = 120.0


def survey(address: str, source: str | None, python: str, packages: Sequence[str]) -> dict[str, Any]:
    """{"driver": versions, "nodes": [...]} as inventory_script.py prints it; `source`: where the client's token comes from.

    ValueError when the cluster cannot be reached or asked.
    """
    said = _as_job(address, source, python, packages) if "://" in address else _as_driver(address, packages)
    return read_answer(said, address, source)


def read_answer(said: str, address: str, source: str | None) -> dict[str, Any]:
    """The answer in what the script has written; ValueError with its last words when there is none."""
    lines = said.splitlines()
    answers = [line for line in lines if line.startswith(MARK)]
    if answers:
        answer: dict[str, Any] = json.loads(answers[-1].removeprefix(MARK))
        return answer
    if "InvalidAuthToken" in said:
        raise ValueError(refusal(address, 401 if source is None else 403, source))
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it wrote nothing")
    raise ValueError(f"the cluster at {address} cannot be asked what is on its nodes: {last}")


def _as_job(address: str, source: str | None, python: str, packages: Sequence[str]) -> str:
    server, said, job = JobServer(address, source), list[str](), f"distseq-doctor-{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory(prefix="distseq-") as folder:
        shutil.copy(SCRIPT, folder)
        server.submit(job, f"{python} {SCRIPT.name} auto {shlex.join(packages)}", {"working_dir": folder}, said.append)
    server.follow(job, said.append, said.append)
    return "".join(said)


def _as_driver(address: str, packages: Sequence[str]) -> str:
    """In a process of its own, which Ray ends when it loses the head. -P: no module of this folder is found by its plain name."""
    host, _, port = address.rpartition(":")
    if port.isdecimal():
        connect(host, int(port), address)
    command = [sys.executable, "-P", str(SCRIPT), address, *packages]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DRIVER_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise ValueError(f"no Ray cluster answers at {address} within {DRIVER_SECONDS:.0f} s") from None
    return done.stderr + done.stdout
