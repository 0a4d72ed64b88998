"""The layers of the package: who may import whom, and where what lives.

Imports are read from the source, wherever they stand in it, so a lazy import counts too.
"""

import ast
import io
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Iterator, Mapping, Set
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Folder -> what it may import beside the standard library; distseq.x is named by its folder x.
LAYERS = {
    "kernels": {"kernels", "torch", "triton", "numpy"},
    "coding": {"coding", "numpy", "scipy"},
    "models": {"models", "kernels", "torch", "numpy", "scipy", "safetensors", "pyarrow", "datasets"},
    "cluster": {"cluster", "coding", "numpy", "ray", "boto3", "botocore", "awslambdaric"},
    "distseq": {
        *("distseq", "models", "cluster", "kernels", "coding"),
        *("torch", "numpy", "scipy", "numba", "safetensors", "cloudpickle", "click", "rich", "matplotlib"),
    },
}
# Module -> the only files that may import it.
HOMES = {
    "ray": "cluster/ray*",
    "boto3": "cluster/aws*",
    "botocore": "cluster/aws*",
    "awslambdaric": "cluster/aws*",
    "triton": "kernels/triton/*",
    "cloudpickle": "distseq/live*",
    "numba": "distseq/replay/*",
    # Optional: a data set that needs one says so.
    "pyarrow": "models/parquet*",
    "datasets": "models/hf*",
    "matplotlib": "distseq/plotting*",
    # Clocks, processes, sockets.
    "time": "cluster/*",
    "threading": "cluster/*",
    "multiprocessing": "cluster/*",
    "concurrent": "cluster/*",
    "asyncio": "cluster/*",
    "socket": "cluster/*",
    "subprocess": "cluster/*",
    "signal": "cluster/*",
}
# File -> modules it may import although their home is elsewhere; each with its reason.
EXCEPTIONS: dict[str, set[str]] = {}
# Lines of code of distseq, coding and cluster together; of the compiled replays, which repeat what those say in another form;
# and of the kernels, each primitive in up to three forms: docstrings, comments and blank lines cost nothing.
CORE_LINES, REPLAY_LINES, KERNEL_LINES = 8500, 750, 2600
SPACE = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


def sources(root: Path) -> list[Path]:
    """Every Python file of the five folders."""
    return sorted(path for folder in LAYERS for path in (root / folder).rglob("*.py"))


def package(path: Path) -> tuple[str, ...]:
    """The package that a file's relative imports start from: coding/a/b.py -> distseq, coding, a."""
    return path.parent.parts if path.parts[0] == "distseq" else ("distseq", *path.parent.parts)


def imports(path: Path, text: str) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of everything that a file imports; the path is relative to the repository root."""
    for node in ast.walk(ast.parse(text, str(path))):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                start = package(path)[: len(package(path)) - level + 1] if level else ()
                base = ".".join((*start, module) if module else start)
                yield from ((node.lineno, f"{base}.{alias.name}") for alias in names)
            case ast.Call(
                func=ast.Name(id="__import__" | "import_module") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield node.lineno, name


def wrong_imports(root: Path, exceptions: Mapping[str, Set[str]]) -> list[str]:
    """One line for each import that breaks a layer or leaves its home."""
    wrong = []
    for source in sources(root):
        path = source.relative_to(root)
        folder, exempt = path.parts[0], exceptions.get(path.as_posix(), ())
        for line, name in imports(path, source.read_text(encoding="utf-8")):
            top, _, rest = name.partition(".")
            place = f"{path.as_posix()}:{line}: {name}"
            if top in LAYERS and top != "distseq":
                wrong.append(f"{place}: import distseq.{top}, not {top}")
                continue
            inner = rest.partition(".")[0]
            key = inner if top == "distseq" and inner in LAYERS else top
            if key not in LAYERS[folder] and key not in sys.stdlib_module_names:
                wrong.append(f"{place}: {folder} may not import {key}")
            if key in HOMES and not fnmatch(path.as_posix(), HOMES[key]) and key not in exempt:
                wrong.append(f"{place}: {key} is imported only in {HOMES[key]}")
    return wrong


def packages(root: Path) -> set[str]:
    """The packages in the tree, by their import names: every folder that holds Python files."""
    return {".".join(package(path.relative_to(root))) for path in sources(root)}


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


@pytest.mark.parametrize(
    ("path", "text", "reason"),
    [
        ("kernels/scan.py", "import scipy", "kernels may not import scipy"),
        ("kernels/scan.py", "from distseq.coding import plan", "kernels may not import coding"),
        ("kernels/scan.py", "import triton", "triton is imported only in kernels/triton/*"),
        ("coding/code.py", "import torch.nn", "coding may not import torch"),
        ("coding/code.py", "def f():\n    import torch", "coding may not import torch"),
        ("coding/code.py", "from distseq import cluster", "coding may not import cluster"),
        ("coding/a/code.py", "from ...cluster import pool", "coding may not import cluster"),
        ("coding/__init__.py", "from ..master import Master", "coding may not import distseq"),
        ("coding/code.py", "import time", "time is imported only in cluster/*"),
        ("models/gru.py", "import distseq.cluster.pool", "models may not import cluster"),
        ("models/gru.py", "from distseq import task", "models may not import distseq"),
        ("models/gru.py", "import pandas", "models may not import pandas"),
        ("models/data.py", "import pyarrow.parquet", "pyarrow is imported only in models/parquet*"),
        ("models/data.py", "from datasets import load_from_disk", "datasets is imported only in models/hf*"),
        ("cluster/pool.py", "import torch", "cluster may not import torch"),
        ("cluster/pool.py", "importlib.import_module('torch')", "cluster may not import torch"),
        ("cluster/pool.py", "__import__('torch')", "cluster may not import torch"),
        ("cluster/pool.py", "import distseq", "cluster may not import distseq"),
        ("cluster/pool.py", "from distseq.models import gru", "cluster may not import models"),
        ("cluster/pool.py", "import ray", "ray is imported only in cluster/ray*"),
        ("cluster/ray_pool.py", "import boto3", "boto3 is imported only in cluster/aws*"),
        ("cluster/ray_pool.py", "from botocore.config import Config", "botocore is imported only in cluster/aws*"),
        ("distseq/master.py", "from ray.util import metrics", "distseq may not import ray"),
        ("distseq/commands.py", "import matplotlib.figure", "matplotlib is imported only in distseq/plotting*"),
        ("distseq/master.py", "from time import monotonic", "time is imported only in cluster/*"),
        ("distseq/scheduling/rounds.py", "import threading", "threading is imported only in cluster/*"),
        ("distseq/master.py", "from concurrent.futures import wait", "concurrent is imported only in cluster/*"),
        ("distseq/master.py", "import coding.plan", "import distseq.coding, not coding"),
        ("models/gru.py", "from kernels import scan", "import distseq.kernels, not kernels"),
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
        ("cluster/ray_pool.py", "import ray.actor\nimport time\nfrom ..coding import plan"),
        ("cluster/aws/pool.py", "import boto3\nfrom botocore.config import Config\nfrom ...coding.plan import Plan"),
        ("distseq/master.py", "import torch\nfrom distseq import cluster, learner\nfrom .scheduling import rounds"),
    ],
)
def test_a_right_import_passes(tmp_path: Path, path: str, text: str) -> None:
    write(tmp_path, path, text)
    assert wrong_imports(tmp_path, {}) == []


def test_an_exception_holds_for_its_file_and_module_only(tmp_path: Path) -> None:
    for path in ("distseq/cli.py", "distseq/master.py"):
        write(tmp_path, path, "import signal, time")
    wrong = wrong_imports(tmp_path, {"distseq/cli.py": {"signal"}})
    assert [line.split(": ")[:2] for line in wrong] == [
        ["distseq/cli.py:1", "time"],
        ["distseq/master.py:1", "signal"],
        ["distseq/master.py:1", "time"],
    ]


def test_pyproject_lists_every_package_of_the_tree() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    assert sorted(setuptools["packages"]) == sorted(packages(ROOT))
    assert setuptools["package-dir"] == {".".join(package(Path(folder, "x.py"))): folder for folder in LAYERS}


def test_packages_are_found_wherever_a_python_file_lies(tmp_path: Path) -> None:
    for path in ("distseq/cli.py", "distseq/scheduling/rounds.py", "kernels/triton/scan.py", "tests/test_x.py"):
        write(tmp_path, path, "")
    assert packages(tmp_path) == {"distseq", "distseq.scheduling", "distseq.kernels.triton"}


def test_every_package_has_an_init() -> None:
    assert [str(path.parent) for path in sources(ROOT) if not (path.parent / "__init__.py").is_file()] == []


@pytest.mark.parametrize("folder", [folder for folder in LAYERS if folder != "distseq"])
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


@pytest.mark.parametrize("code", ["import distseq.cli", HELP], ids=["import", "help"])
def test_the_command_line_starts_without_heavy_imports(code: str) -> None:
    answer = python("-c", f"import sys\n{code}\nprint(*sorted(sys.modules), file=sys.stderr)")
    assert answer.returncode == 0, answer.stderr
    assert {"torch", "ray", "boto3", "scipy", "triton", "matplotlib"} & set(answer.stderr.split()) == set()


def code_lines(text: str) -> int:
    """Lines that hold code."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    lines = {n for token in tokens if token.type not in SPACE for n in range(token.start[0], token.end[0] + 1)}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            lines -= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return len(lines)


def test_lines_of_code_are_those_that_do_something() -> None:
    assert (
        code_lines('"""Doc."""\n\n# why\nx = [\n    1,\n]\n\n\ndef f():\n    """What\n    it is."""\n    return x\n')
        == 5
    )


def test_the_core_stays_small() -> None:
    lines = {path.relative_to(ROOT): code_lines(path.read_text(encoding="utf-8")) for path in sources(ROOT)}
    replays = {path: count for path, count in lines.items() if path.parts[:2] == ("distseq", "replay")}
    kernels = {path: count for path, count in lines.items() if path.parts[0] == "kernels"}
    core = {
        path: count for path, count in lines.items() if path.parts[0] != "models" and path not in {*replays, *kernels}
    }
    assert sum(core.values()) < CORE_LINES
    assert sum(replays.values()) < REPLAY_LINES
    assert sum(kernels.values()) < KERNEL_LINES
