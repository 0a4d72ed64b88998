"""What pyproject.toml declares is what the code imports."""

import re
import sys
import tomllib
from pathlib import Path

from tests.project.source import ROOT, imports, sources

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Module -> the distribution that brings it, where that has another name.
BRINGS = {
    "torch_geometric": "torch-geometric",
    "botocore": "boto3",
    "grpc": "ray",
    "pydantic_core": "pydantic",
    "tomli_w": "tomli-w",
    "xdist": "pytest-xdist",
    "yaml": "ray",
}
# boto3: aws: data are files that its botocore ships, read without importing it. scipy: for users' schemes and models, and the
# reference that tests compare with (docs/decisions/019-scipy.md).
NOT_IMPORTED = {"boto3", "scipy"}
# Data sets of these kinds name the package where it is missing.
OPTIONAL = {"datasets"}


def declared(lines: list[str]) -> set[str]:
    """The distributions that requirements name."""
    return {re.split(r"[\[<>=; ]", line)[0] for line in lines}


def imported(files: list[Path]) -> dict[str, str]:
    """Distribution -> a file that imports it, beside the standard library and this project."""
    own = {"distseq", "tests", "extensions", *sys.stdlib_module_names, *(path.stem for path in files)}
    found = {}
    for file in files:
        for _, name in imports(file.relative_to(ROOT), file.read_text(encoding="utf-8")):
            top = name.partition(".")[0]
            if top not in own:
                found[BRINGS.get(top, top)] = file.relative_to(ROOT).as_posix()
    return found


def test_every_dependency_is_imported_and_every_import_is_declared() -> None:
    base, plot = declared(PROJECT["dependencies"]), declared(PROJECT["optional-dependencies"]["plot"])
    found = imported(sources(ROOT))
    assert base - found.keys() <= NOT_IMPORTED
    assert {name: file for name, file in found.items() if name not in base | plot | OPTIONAL} == {}


def test_what_tests_and_documentation_import_is_declared() -> None:
    files = [path for folder in ("tests", "docs", "examples") for path in (ROOT / folder).rglob("*.py")]
    extras = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
    known = declared(PROJECT["dependencies"]) | declared(extras) | OPTIONAL
    assert {name: file for name, file in imported(files).items() if name not in known} == {}


def test_no_extra_is_empty() -> None:
    assert all(PROJECT["optional-dependencies"].values())


def test_every_dependency_is_in_the_tested_set() -> None:
    pinned = {
        line.partition("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().split()
    }
    extras = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
    assert (declared(PROJECT["dependencies"]) | declared(extras)) - {"distseq"} <= pinned
