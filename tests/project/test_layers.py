"""The layers of the package: who may import whom, and where what lives.

A file imports its own unit and the rows below it, never a row above or another unit of its row, and no imports form a circle.
Imports are read from the source, wherever they stand in it, so a lazy import and one for typing count too.
"""

import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Set
from fnmatch import fnmatch
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.project.source import LINES, ROOT, code_lines, imports, sources

# The units of each row, highest first; a file belongs to the longest that its path begins with.
ROWS = [
    ["distseq/__main__.py"],
    ["distseq/cli/"],
    ["distseq/__init__.py"],
    ["distseq/training/"],
    ["distseq/artifacts/"],
    ["distseq/simulation/", "distseq/learners/"],
    ["distseq/monitoring/", "distseq/gradients/"],
    ["distseq/engine/", "distseq/config/"],
    ["distseq/scheduling/adaptive/"],
    ["distseq/scheduling/replay/"],
    ["distseq/scheduling/"],
    ["cluster/", "models/"],
    ["coding/", "kernels/"],
]
ROW = {unit: row for row, units in enumerate(ROWS) for unit in units}
# Folder -> what its files may import beside the standard library and distseq.
PACKAGES = {
    "kernels": {"torch", "triton", "numpy"},
    "coding": {"numpy", "scipy"},
    "models": {"torch", "numpy", "scipy", "safetensors", "pyarrow", "datasets"},
    "cluster": {"numpy", "scipy", "ray", "grpc", "boto3", "botocore", "awslambdaric"},
    "distseq": {
        "torch",
        "numpy",
        "scipy",
        "numba",
        "safetensors",
        "cloudpickle",
        "click",
        "rich",
        "matplotlib",
        "pydantic",
        "pydantic_core",
        "tomli_w",
    },
}
# Module -> the only files that may import it.
HOMES = {
    "ray": "cluster/ray/*",
    "grpc": "cluster/ray/*",
    "boto3": "cluster/aws/*",
    "botocore": "cluster/aws/*",
    "awslambdaric": "cluster/aws/*",
    "triton": "kernels/triton/*",
    "cloudpickle": "distseq/learners/pickling*",
    "numba": "distseq/scheduling/replay/*",
    "click": "distseq/cli/*",
    "pydantic": "distseq/config/*",
    "pydantic_core": "distseq/config/*",
    "tomli_w": "distseq/config/*",
    "pyarrow": "models/data/*",
    # Optional: a data set that needs it says so.
    "datasets": "models/data/hf*",
    "matplotlib": "distseq/simulation/plot*",
    # Clocks, processes, sockets.
    "time": "cluster/*",
    "threading": "cluster/*",
    "multiprocessing": "cluster/*",
    "concurrent": "cluster/*",
    "asyncio": "cluster/*",
    "socket": "cluster/*",
    "subprocess": "cluster/*",
    "signal": "cluster/*",
    "fcntl": "cluster/*",
}
# File -> modules it may import although their home is elsewhere; each with its reason.
EXCEPTIONS: dict[str, set[str]] = {}


def place(name: str) -> str:
    """Where a name of distseq lies: distseq.coding.plan.Plan -> coding/plan/Plan, distseq.engine -> distseq/engine."""
    parts = name.split(".")
    inner = parts[1:] if len(parts) > 1 and parts[1] in PACKAGES else parts
    return "/".join(inner)


def file_of(root: Path, name: str) -> str | None:
    """The file that holds a name of distseq, None where the tree has none."""
    path = Path(place(name))
    for one in (path, path.parent):
        for file in (f"{one}.py", f"{one}/__init__.py"):
            if one.parts and (root / file).is_file():
                return file
    return None


def unit_of(path: str) -> str:
    """The unit of a file, or of what a name of distseq says of its place: `distseq/__init__.py` where it says nothing."""
    units = [unit for unit in ROW if f"{path}/".startswith(unit) or path == unit]
    return max(units, key=len, default="distseq/__init__.py")


def wrong_imports(root: Path, exceptions: Mapping[str, Set[str]]) -> list[str]:
    """One line for each import that breaks a layer or leaves its home."""
    wrong = []
    for source in sources(root):
        path = source.relative_to(root).as_posix()
        folder, unit, exempt = path.partition("/")[0], unit_of(path), exceptions.get(path, ())
        for line, name in imports(Path(path), source.read_text(encoding="utf-8")):
            top = name.partition(".")[0]
            where = f"{path}:{line}: {name}"
            if top in PACKAGES and top != "distseq":
                wrong.append(f"{where}: import distseq.{top}, not {top}")
            elif top == "distseq":
                other = unit_of(file_of(root, name) or place(name))
                if other != unit and ROW[other] <= ROW[unit]:
                    wrong.append(f"{where}: {unit} may not import {other}")
            elif top not in PACKAGES[folder] and top not in sys.stdlib_module_names:
                wrong.append(f"{where}: {folder} may not import {top}")
            if top in HOMES and not fnmatch(path, HOMES[top]) and top not in exempt:
                wrong.append(f"{where}: {top} is imported only in {HOMES[top]}")
    return wrong


def circle(root: Path) -> list[str]:
    """Files that import each other in a circle; none if there is none."""
    graph: dict[str, set[str]] = defaultdict(set)
    for source in sources(root):
        path = source.relative_to(root).as_posix()
        names = (name for _, name in imports(Path(path), source.read_text(encoding="utf-8")))
        found = {file_of(root, name) for name in names if name.partition(".")[0] == "distseq"}
        graph[path] = {file for file in found if file is not None and file != path}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def write(root: Path, path: str, text: str) -> None:
    """Puts a file into a synthetic tree."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text, encoding="utf-8")


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Python in the repository root, which is on its path."""
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)


def test_imports_follow_the_layers() -> None:
    assert wrong_imports(ROOT, EXCEPTIONS) == []


def test_every_exception_is_used() -> None:
    without = wrong_imports(ROOT, {})
    unused = [
        f"{path}: {module}"
        for path, modules in EXCEPTIONS.items()
        for module in modules
        if not any(line.startswith(f"{path}:") and f": {module} is imported only in" in line for line in without)
    ]
    assert unused == []


def test_imports_form_no_circle() -> None:
    assert circle(ROOT) == []


def test_a_circle_is_found_also_where_it_is_for_typing_only(tmp_path: Path) -> None:
    write(tmp_path, "coding/a.py", "from distseq.coding.b import B")
    write(tmp_path, "coding/b.py", "import typing\nif typing.TYPE_CHECKING:\n    from distseq.coding.a import A")
    assert set(circle(tmp_path)) == {"coding/a.py", "coding/b.py"}


@pytest.mark.parametrize(
    ("path", "text", "reason"),
    [
        ("kernels/scan.py", "import scipy", "kernels may not import scipy"),
        ("kernels/scan.py", "from distseq.coding import plan", "kernels/ may not import coding/"),
        ("kernels/scan.py", "import triton", "triton is imported only in kernels/triton/*"),
        ("coding/code.py", "import torch.nn", "coding may not import torch"),
        ("coding/code.py", "def f():\n    import torch", "coding may not import torch"),
        ("coding/code.py", "from distseq import cluster", "coding/ may not import cluster/"),
        ("coding/a/code.py", "from ...cluster import pool", "coding/ may not import cluster/"),
        ("coding/__init__.py", "from ..engine.master import Master", "coding/ may not import distseq/engine/"),
        ("coding/code.py", "import time", "time is imported only in cluster/*"),
        ("models/gru.py", "import distseq.cluster.pool", "models/ may not import cluster/"),
        ("models/gru.py", "from distseq.gradients import work", "models/ may not import distseq/gradients/"),
        ("models/gru.py", "import pandas", "models may not import pandas"),
        ("models/sequence.py", "import pyarrow.parquet", "pyarrow is imported only in models/data/*"),
        (
            "models/data/dataset.py",
            "from datasets import load_from_disk",
            "datasets is imported only in models/data/hf*",
        ),
        ("cluster/pool.py", "import torch", "cluster may not import torch"),
        ("cluster/pool.py", "importlib.import_module('torch')", "cluster may not import torch"),
        ("cluster/pool.py", "__import__('torch')", "cluster may not import torch"),
        ("cluster/pool.py", "import distseq", "cluster/ may not import distseq/__init__.py"),
        ("cluster/pool.py", "from distseq.models import gru", "cluster/ may not import models/"),
        ("cluster/pool.py", "import ray", "ray is imported only in cluster/ray/*"),
        ("cluster/ray/pool.py", "import boto3", "boto3 is imported only in cluster/aws/*"),
        ("cluster/ray/pool.py", "from botocore.config import Config", "botocore is imported only in cluster/aws/*"),
        ("distseq/engine/master.py", "from ray.util import metrics", "distseq may not import ray"),
        ("distseq/cli/plot.py", "import matplotlib.figure", "matplotlib is imported only in distseq/simulation/plot*"),
        ("distseq/engine/master.py", "from time import monotonic", "time is imported only in cluster/*"),
        ("distseq/scheduling/rounds.py", "import threading", "threading is imported only in cluster/*"),
        ("distseq/engine/master.py", "from concurrent.futures import wait", "concurrent is imported only in cluster/*"),
        ("distseq/engine/master.py", "import coding.plan", "import distseq.coding, not coding"),
        ("models/gru.py", "from kernels import scan", "import distseq.kernels, not kernels"),
        ("distseq/config/a.py", "from distseq.engine.b import B", "distseq/config/ may not import distseq/engine/"),
        ("distseq/learners/a.py", "from distseq.simulation import b", "learners/ may not import distseq/simulation/"),
        (
            "distseq/scheduling/a.py",
            "from distseq.scheduling.replay import b",
            "may not import distseq/scheduling/replay/",
        ),
        (
            "distseq/scheduling/replay/a.py",
            "from distseq.scheduling.adaptive.b import B",
            "distseq/scheduling/replay/ may not import distseq/scheduling/adaptive/",
        ),
        ("distseq/artifacts/a.py", "from distseq import train", "artifacts/ may not import distseq/__init__.py"),
        ("distseq/simulation/a.py", "import click", "click is imported only in distseq/cli/*"),
    ],
)
def test_a_wrong_import_is_caught(tmp_path: Path, path: str, text: str, reason: str) -> None:
    write(tmp_path, path, text)
    assert reason in "\n".join(wrong_imports(tmp_path, {}))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("kernels/scan.py", "import math\nimport numpy as np\nimport torch.nn.functional as F"),
        ("kernels/triton/scan.py", "import triton.language as tl\nfrom distseq.kernels import reference"),
        (
            "coding/a/code.py",
            "from __future__ import annotations\nfrom scipy.optimize import linprog\nfrom .. import b",
        ),
        ("models/gru.py", "from distseq import kernels\nfrom distseq.models.data import Dataset\nfrom . import data"),
        ("cluster/ray/pool.py", "import ray.actor\nimport time\nfrom ...coding import plan"),
        ("cluster/aws/pool.py", "import boto3\nfrom botocore.config import Config\nfrom ...coding.plan import Plan"),
        ("distseq/engine/master.py", "import torch\nfrom distseq import cluster\nfrom ..scheduling import rounds"),
        ("distseq/cli/train.py", "import click\nimport distseq\nfrom distseq.training.train import train"),
    ],
)
def test_a_right_import_passes(tmp_path: Path, path: str, text: str) -> None:
    write(tmp_path, path, text)
    assert wrong_imports(tmp_path, {}) == []


def test_an_exception_holds_for_its_file_and_module_only(tmp_path: Path) -> None:
    for path in ("distseq/cli/main.py", "distseq/engine/master.py"):
        write(tmp_path, path, "import signal, time")
    wrong = wrong_imports(tmp_path, {"distseq/cli/main.py": {"signal"}})
    assert [line.split(": ")[:2] for line in wrong] == [
        ["distseq/cli/main.py:1", "time"],
        ["distseq/engine/master.py:1", "signal"],
        ["distseq/engine/master.py:1", "time"],
    ]


def test_every_package_has_an_init() -> None:
    assert [str(path.parent) for path in sources(ROOT) if not (path.parent / "__init__.py").is_file()] == []


@pytest.mark.parametrize("folder", [folder for folder in PACKAGES if folder != "distseq"])
def test_a_folder_imported_by_its_plain_name_is_refused(folder: str) -> None:
    answer = python("-c", f"import {folder}")
    assert answer.returncode == 1
    assert answer.stderr.splitlines()[-1] == f"ImportError: import distseq.{folder}, not {folder}"


HELP = """
import runpy
sys.argv = ["distseq", "--help"]
try:
    runpy.run_module("distseq", run_name="__main__", alter_sys=True)
except SystemExit as stop:
    assert not stop.code, stop.code
"""


@pytest.mark.parametrize("code", ["import distseq.cli.main", HELP], ids=["import", "help"])
def test_the_command_line_starts_without_heavy_imports(code: str) -> None:
    answer = python("-c", f"import sys\n{code}\nprint(*sorted(sys.modules), file=sys.stderr)")
    assert answer.returncode == 0, answer.stderr
    assert {"torch", "ray", "boto3", "scipy", "triton", "matplotlib", "numpy", "pydantic"} & set(
        answer.stderr.split()
    ) == set()


def test_lines_of_code_are_those_that_do_something() -> None:
    assert (
        code_lines(
            '"""Doc."""\n\nimport os\n\n# why\nx = [\n    1,\n]\n\n\ndef f():\n    """What\n    it is."""\n    return x\n'
        )
        == 5
    )


@pytest.mark.parametrize("folder", LINES)
def test_a_folder_stays_small(folder: str) -> None:
    assert sum(code_lines(path.read_text(encoding="utf-8")) for path in (ROOT / folder).rglob("*.py")) <= LINES[folder]
