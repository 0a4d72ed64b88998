"""The example, submitted to a Ray cluster as its users do."""

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
# What `ray job submit` says while the head is still starting.
STARTING = ("Failed to connect", "Connection refused", "please try again later")
pytestmark = [pytest.mark.ray, pytest.mark.slow]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[str, dict[str, str]]]:
    """The dashboard's address of a head node of its own, with token authentication, and the environment of its clients."""
    folder = tempfile.mkdtemp(prefix="rj")  # short: Ray makes sockets below it
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    port, dashboard = free_port(), free_port()
    # The agent's usual port may be another Ray's on this machine; without it no job is ever taken.
    agent = f"--dashboard-agent-listen-port={free_port()}"
    options = ["--include-dashboard=true", f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1", agent]
    start = ["start", "--head", f"--port={port}", "--num-cpus=4", f"--temp-dir={folder}", "--block", *options]
    with open(Path(folder) / "head.log", "w") as log:
        head = subprocess.Popen(ray(*start), env=environment, stdout=log, stderr=log, start_new_session=True)
    yield f"http://127.0.0.1:{dashboard}", environment
    with contextlib.suppress(ProcessLookupError):
        os.killpg(head.pid, signal.SIGTERM)
    head.wait(timeout=60)
    shutil.rmtree(folder, ignore_errors=True)


def ray(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from ray.scripts.scripts import main; main()", *arguments]


def submit(
    cluster: tuple[str, dict[str, str]], working_dir: Path, *entrypoint: str
) -> subprocess.CompletedProcess[str]:
    address, environment = cluster
    command = ray("job", "submit", "--address", address, "--working-dir", str(working_dir), "--", *entrypoint)
    for _ in range(30):
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if result.returncode == 0 or not any(sign in result.stdout + result.stderr for sign in STARTING):
            break
    return result


def test_the_example_trains_a_model_of_the_user_s_own_from_a_checkout(
    cluster: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    checkout = tmp_path / "checkout"
    for folder in ("distseq", "coding", "cluster", "kernels", "models", "examples"):
        shutil.copytree(ROOT / folder, checkout / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", checkout)
    out = tmp_path / "run"
    result = submit(cluster, checkout, sys.executable, "examples/ray/train.py", str(out))
    assert result.returncode == 0, result.stdout + result.stderr
    summary = json.loads((out / "summary.json").read_text())
    for model in summary["models"].values():
        assert model["bits_per_char"] < model["unigram_bits_per_char"]
    assert summary["largest_gradient_difference"] < 1e-6


def test_a_job_that_fails_is_reported_as_failed(cluster: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("raise SystemExit(3)")
    assert submit(cluster, tmp_path, sys.executable, "bad.py").returncode == 1


def test_the_cluster_file_is_one_that_ray_accepts() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(yaml.safe_load((ROOT / "examples" / "ray" / "cluster.yaml").read_text())))
