"""A Ray head of a test's own, with token authentication, whose jobs find no distseq by themselves."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

STARTS = 90.0  # seconds that the dashboard is waited for


class Cluster(NamedTuple):
    """The addresses of its dashboard and its control store, the environment of its clients, the home folder of its jobs."""

    address: str
    store: str
    environment: dict[str, str]
    home: Path

    @property
    def token(self) -> str:
        return self.environment["RAY_AUTH_TOKEN"]


def ray(*arguments: str) -> list[str]:
    """Ray's command line."""
    return [sys.executable, "-c", "from ray.scripts.scripts import main; main()", *arguments]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextlib.contextmanager
def head(mode: str = "token") -> Iterator[Cluster]:
    """A head; `mode` is that of its authentication, token or disabled.

    It starts away from the checkout and without PYTHONPATH, so that a job imports only what it brings or what is installed.
    """
    folder = tempfile.mkdtemp(prefix="rj")  # short: Ray makes sockets below it
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_") and k != "PYTHONPATH"}
    environment |= {"RAY_AUTH_MODE": mode, "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    environment |= {"HOME": folder, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    port, dashboard = free_port(), free_port()
    # The agent's usual port may be another Ray's on this machine; without it no job is ever taken.
    agent = f"--dashboard-agent-listen-port={free_port()}"
    options = ["--include-dashboard=true", f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1", agent]
    start = ["start", "--head", f"--port={port}", "--num-cpus=4", f"--temp-dir={folder}", "--block", *options]
    with open(Path(folder) / "head.log", "w") as log:
        process = subprocess.Popen(
            ray(*start), env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _wait(dashboard, process)
        yield Cluster(f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{port}", environment, Path(folder))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def _wait(port: int, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + STARTS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
            return
        except OSError:
            assert process.poll() is None, "the head has ended"
            assert time.monotonic() < end, f"the head has no dashboard after {STARTS:.0f} s"
            time.sleep(0.2)
