"""Without ray, boto3 and triton: what does not need them works, and what does says so in one line."""

import json
import re
import subprocess
import venv
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest

from tests.project.source import ROOT
from tests.project.test_dependencies import PROJECT, declared

pytestmark = pytest.mark.slow
# What is left out, with what only these bring.
MISSING = {"ray", "boto3", "botocore", "triton", "scipy"}
JOB = """
[run]
steps = 2
[pool]
kind = "local"
workers = 2
hosts = 1
[[learner]]
name = "a"
model = "distseq.models.sequence:SequenceModel"
model_args = { width = 8 }
data = "text:some.txt"
data_args = { window = 4 }
batch = 4
"""


def brought(names: Iterable[str]) -> dict[str, Distribution]:
    """The installed distributions of these names and what they require, without MISSING."""
    found: dict[str, Distribution] = {}
    todo = [name for name in names if name not in MISSING]
    while todo:
        name = todo.pop()
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:  # of another platform
            continue
        lines = [line for line in found[name].requires or [] if "extra ==" not in line]
        todo += [name for line in lines if (name := re.split(r"[\[<>=!~; (]", line)[0].lower()) not in MISSING]
    return found


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has all that distseq needs but MISSING, as links to what is installed here."""
    return environment(tmp_path_factory.mktemp("environment"), declared(PROJECT["dependencies"]))


def environment(folder: Path, names: Iterable[str]) -> Path:
    venv.create(folder, with_pip=False)
    (site,) = folder.glob("lib/*/site-packages")
    (site / "tree.pth").write_text(f"{ROOT}\n")
    for found in brought(names).values():
        for top in {file.parts[0] for file in found.files or [] if file.parts[0] not in ("..", "__pycache__")}:
            if not (site / top).exists():
                (site / top).symlink_to(Path(str(found.locate_file(top))).resolve())
    return folder / "bin" / "python"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "some.txt").write_text("to be or not to be, that is the question. " * 40)
    (tmp_path / "config.toml").write_text(JOB)
    return tmp_path


def distseq(python: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [python, "-m", "distseq", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_packages_are_missing_there(python: Path) -> None:
    code = f"from importlib.util import find_spec; print([name for name in {sorted(MISSING)} if find_spec(name)])"
    assert subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    "arguments",
    [
        "train config.toml --out run --json",
        "train config.toml --pool simulated --out run --json",
        "simulate --profile bursts --workers 8 --jobs 8 --json",
        "plan config.toml --json",
        "profile --pool local --workers 2 --rounds 2 --out t.npz",
    ],
    ids=["local", "simulated", "simulate", "plan", "profile local"],
)
def test_what_does_not_need_them_works(python: Path, folder: Path, arguments: str) -> None:
    result = distseq(python, folder, *arguments.split())
    assert result.returncode == 0, result.stderr
    assert result.stdout


def test_layers_work(python: Path) -> None:
    code = """
import torch
from distseq.kernels import layers
for name in layers.LAYERS:
    (layer,) = layers.layers_of(name, 32)
    layer(torch.randn(2, 5, 32))[0].sum().backward()
"""
    result = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            "train config.toml --pool ray",
            "pool ray needs ray, which is not installed: python -m pip install 'ray[default]'",
        ),
        (
            "profile --pool ray --out t.npz",
            "pool ray needs ray, which is not installed: python -m pip install 'ray[default]'",
        ),
        (
            "submit config.toml",
            "distseq submit needs ray, which is not installed: python -m pip install 'ray[default]'",
        ),
        (
            "train aws.toml",
            "AWS documentation comes with botocore, which is not installed: python -m pip install boto3",
        ),
    ],
)
def test_what_needs_them_says_so_in_one_line(python: Path, folder: Path, arguments: str, line: str) -> None:
    (folder / "aws.toml").write_text(JOB.replace("text:some.txt", "aws:s3"))
    result = distseq(python, folder, *arguments.split())
    assert (result.returncode, result.stdout) == (2, "")
    (said,) = result.stderr.splitlines()
    assert said.startswith("error: ")
    assert said.endswith(line)


def test_the_triton_backend_says_so_in_one_line(python: Path) -> None:
    code = """
import os, torch
os.environ |= {"DISTSEQ_KERNELS": "triton", "TRITON_INTERPRET": "1"}
from distseq.kernels import linear_attention
q = torch.randn(1, 4, 1, 16)
linear_attention(q, q, q)
"""
    result = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    assert result.stderr.splitlines()[-1] == (
        "ValueError: linear_attention cannot run on triton, as DISTSEQ_KERNELS requests: "
        "it is not installed: python -m pip install triton"
    )


def test_the_doctor_counts_them_as_optional(python: Path, folder: Path) -> None:
    result = distseq(python, folder, "doctor", "--json")
    levels = {finding["about"]: finding["level"] for finding in json.loads(result.stdout)["findings"]}
    assert {name: levels[name] for name in ("ray", "boto3", "triton")} == dict.fromkeys(
        ("ray", "boto3", "triton"), "warning"
    )
    assert levels["local pool"] == "ok"


def test_the_doctor_prints_what_to_install_where_nothing_is(tmp_path: Path) -> None:
    """`pip install --no-deps` of the wheel, and click, which the command line itself needs."""
    result = distseq(environment(tmp_path / "environment", ["click"]), tmp_path, "doctor")
    assert (result.returncode, result.stderr) == (1, "")
    (last,) = (line for line in result.stdout.splitlines() if " packages: " in line)
    assert last.startswith("error    packages: what is missing comes with: python -m pip install 'torch>=2.6' 'numpy>=")
    assert "'ray[default]>=" in last
    assert "click" not in last
