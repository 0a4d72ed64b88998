"""Runs inventory_script.py on a Ray cluster, as a Ray job (http address) or as a local driver process."""

import json
import os
import secrets
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from distseq.cluster.ray.auth_token import refusal, token_source
from distseq.cluster.ray.inventory_script import MARK
from distseq.cluster.ray.jobs import JobServer
from distseq.cluster.ray.session import Access, locate

SCRIPT = files("distseq.cluster.ray") / "inventory_script.py"
# Seconds for the local driver: to connect to the head, and then inventory_script.SECONDS for its nodes.
DRIVER_SECONDS = 120.0


def survey(access: Access, python: str, packages: Sequence[str]) -> dict[str, Any]:
    """{"driver": versions, "nodes": [...]} as inventory_script.py prints it.

    ValueError where a run or a submitted job would find the same fault, or if the cluster does not run the script.
    """
    if "://" in access.address:
        server = JobServer(access)
        return read_answer(_as_job(server, python, packages), access.address, server.source)
    place = locate(access)
    source = token_source(os.environ, Path.home())
    return read_answer(_as_driver(place.address, packages), place.address, source)


def read_answer(output: str, address: str, source: str | None) -> dict[str, Any]:
    """The answer within the script's output. ValueError with the last line of the output if there is none."""
    # Found by its mark: Ray prints warnings and logs of its own between and around the script's lines.
    lines = output.splitlines()
    answers = [line for line in lines if line.startswith(MARK)]
    if answers:
        answer: dict[str, Any] = json.loads(answers[-1].removeprefix(MARK))
        return answer
    if "InvalidAuthToken" in output:
        raise ValueError(refusal(address, 401 if source is None else 403, source))
    last = next((line.strip() for line in reversed(lines) if line.strip()), "the script wrote nothing")
    raise ValueError(f"cannot list the nodes of the cluster at {address}: {last}")


def _as_job(server: JobServer, python: str, packages: Sequence[str]) -> str:
    output, name = list[str](), f"distseq-doctor-{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory(prefix="distseq-") as folder:
        (Path(folder) / SCRIPT.name).write_bytes(SCRIPT.read_bytes())
        server.submit(
            name, f"{python} {SCRIPT.name} auto {shlex.join(packages)}", {"working_dir": folder}, output.append
        )
    server.follow(name, output.append, output.append)
    return "".join(output)


def _as_driver(address: str, packages: Sequence[str]) -> str:
    """Run the script in a process of this machine."""
    try:
        with as_file(SCRIPT) as script:
            # A process of its own, because Ray ends the process that loses the head. -P keeps this folder off sys.path, where
            # metrics.py, jobs.py and others would be found by their plain names.
            command = [sys.executable, "-P", str(script), address, *packages]
            done = subprocess.run(command, capture_output=True, text=True, timeout=DRIVER_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise ValueError(f"no Ray cluster answers at {address} within {DRIVER_SECONDS:.0f} s") from None
    return done.stderr + done.stdout
