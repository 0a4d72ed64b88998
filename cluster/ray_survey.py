"""Runs ray_nodes.py on a cluster: as a job through its dashboard's http address, or as a driver of this machine's."""

import json
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from distseq.cluster.ray_jobs import JobServer
from distseq.cluster.ray_nodes import MARK

SCRIPT = Path(__file__).with_name("ray_nodes.py")
DRIVER_SECONDS = 180.0


def survey(address: str, source: str | None, python: str) -> dict[str, Any]:
    """{"driver": versions, "nodes": [...]} of ray_nodes.py; `source` is where the client's token comes from.

    ValueError when the cluster cannot be reached or asked.
    """
    said = _as_job(address, source, python) if "://" in address else _as_driver(address)
    lines = [line for line in said.splitlines() if line.startswith(MARK)]
    if not lines:
        last = next((line for line in reversed(said.splitlines()) if line.strip()), "nothing")
        raise ValueError(f"the cluster at {address} cannot be asked what is on its nodes: {last.strip()}")
    answer: dict[str, Any] = json.loads(lines[-1].removeprefix(MARK))
    return answer


def _as_job(address: str, source: str | None, python: str) -> str:
    server, said, job = JobServer(address, source), list[str](), f"distseq-doctor-{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory(prefix="distseq-") as folder:
        shutil.copy(SCRIPT, folder)
        server.submit(job, f"{python} {SCRIPT.name} auto", {"working_dir": folder}, said.append)
    server.follow(job, said.append, said.append)
    return "".join(said)


def _as_driver(address: str) -> str:
    """In a process of its own, which Ray ends when it loses the head. -P: this folder's modules are not to be found by plain names."""
    command = [sys.executable, "-P", str(SCRIPT), address]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DRIVER_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise ValueError(f"no Ray cluster answers at {address} within {DRIVER_SECONDS:.0f} s") from None
    return done.stderr + done.stdout
