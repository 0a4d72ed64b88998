"""The example, submitted to a Ray cluster as its users do."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.cluster.ray.head import Cluster, ray

ROOT = Path(__file__).resolve().parents[3]
# What `ray job submit` says while the head is still starting.
STARTING = ("Failed to connect", "Connection refused", "please try again later")
pytestmark = [pytest.mark.ray, pytest.mark.slow]


def submit(cluster: Cluster, working_dir: Path, *entrypoint: str) -> subprocess.CompletedProcess[str]:
    environment = cluster.environment
    command = ray("job", "submit", "--address", cluster.address, "--working-dir", str(working_dir), "--", *entrypoint)
    for _ in range(30):
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if result.returncode == 0 or not any(sign in result.stdout + result.stderr for sign in STARTING):
            break
    return result


def test_the_example_trains_a_model_of_the_user_s_own_from_a_checkout(cluster: Cluster, tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    for folder in ("distseq", "coding", "cluster", "kernels", "models", "examples"):
        # The links in distseq/ stay links, as they are in a checkout: Ray must send what they point to.
        shutil.copytree(ROOT / folder, checkout / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", checkout)
    out = tmp_path / "run"
    result = submit(cluster, checkout, sys.executable, "examples/ray/train.py", str(out))
    assert result.returncode == 0, result.stdout + result.stderr
    summary = json.loads((out / "summary.json").read_text())
    for model in summary["models"].values():
        assert model["bits_per_char"] < model["unigram_bits_per_char"]
    assert summary["largest_gradient_difference"] < 1e-6


def test_a_job_that_fails_is_reported_as_failed(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("raise SystemExit(3)")
    assert submit(cluster, tmp_path, sys.executable, "bad.py").returncode == 1


def test_the_cluster_file_is_one_that_ray_accepts() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(yaml.safe_load((ROOT / "examples" / "ray" / "cluster.yaml").read_text())))
