"""What is installed on a machine, and what a broken one is told."""

import importlib.metadata
import tomllib
from pathlib import Path

import pytest

from distseq.cli.doctor import machine
from distseq.cli.doctor.findings import Subject, examine

ROOT = Path(__file__).resolve().parents[4]
MiB = 1 << 20


def missing(name: str) -> str:
    raise importlib.metadata.PackageNotFoundError(name)


def broken(name: str) -> object:
    raise OSError("libcudart.so: cannot open\nshared object file")


@pytest.mark.parametrize(
    ("version", "load", "level", "text"),
    [
        (lambda name: "2.13.0+cpu", str, "ok", "2.13.0+cpu (needs 2.6 or newer)"),
        (missing, str, "error", "is not installed: python -m pip install 'torch>=2.6'"),
        (lambda name: "2.5.1", str, "error", "2.5.1 is too old: python -m pip install 'torch>=2.6'"),
        (
            lambda name: "2.6",
            broken,
            "error",
            "2.6 cannot be imported: OSError: libcudart.so: cannot open shared object file",
        ),
    ],
)
def test_a_package_is_there_new_enough_and_importable(version, load, level: str, text: str) -> None:  # type: ignore[no-untyped-def]
    assert machine.package(machine.Requirement("torch", "2.6", "torch>=2.6"), version, load) == ("torch", level, text)


def test_a_missing_package_that_little_needs_is_a_warning() -> None:
    found = machine.package(machine.Requirement("ray", "2.59", "ray[default]>=2.59"), missing, str)
    assert (found.level, found.text.partition(",")[0]) == ("warning", "is not installed")
    assert found.text.endswith(": python -m pip install 'ray[default]>=2.59'")


def test_what_is_missing_comes_with_one_command(monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: missing(name) if name in ("ray", "click") else there(name)
    )
    *_, last = machine.packages(Subject())
    assert last[:2] == ("packages", "error")
    assert last.text.endswith(": python -m pip install 'ray[default]>=2.59' 'click>=8.1'")


@pytest.mark.parametrize(
    ("version", "least", "enough"),
    [
        ("2.10", "2.9", True),
        ("2.9", "2.10", False),
        ("3", "3", True),
        ("3.11.7", "3.11", True),
        ("3.11.0rc1", "3.11", True),
        ("", "1", False),
    ],
)
def test_versions_are_compared_by_their_numbers(version: str, least: str, enough: bool) -> None:
    assert machine.at_least(version, least) == enough


def test_every_dependency_is_looked_at() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    python, found = machine.requirements()
    assert f">={python}" == project["requires-python"]
    here = [line for line in project["dependencies"] if "platform_system" not in line]
    assert {one.name for one in found} >= {line.partition(">=")[0].partition("[")[0] for line in here}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("ray[default]>=2.59", ("ray", "2.59", "ray[default]>=2.59")),
        ("numpy>=1.26; platform_system == 'Nowhere'", None),
        ('pytest>=8; extra == "test"', None),
    ],
)
def test_a_requirement_of_another_platform_or_an_extra_is_none(line: str, found: tuple[str, str, str] | None) -> None:
    assert machine.parse_requirement(line) == found


def test_a_requirement_that_is_not_understood_is_said() -> None:
    with pytest.raises(ValueError, match=r"cannot read the requirement 'torch~=2\.6'"):
        machine.parse_requirement("torch~=2.6")


def test_little_shared_memory_and_few_files_are_warned_of() -> None:
    ((_, level, text),) = machine.shared_memory_of(64 * MiB)
    assert (level, text.partition(":")[0]) == ("warning", "64 MiB free in /dev/shm, a local Ray needs 512")
    ((_, level, text),) = machine.descriptors_of(256)
    assert (level, text) == ("warning", "at most 256, which many workers exceed: ulimit -n 4096")
    assert [machine.shared_memory_of(512 * MiB)[0].level, machine.descriptors_of(4096)[0].level] == ["ok", "ok"]


def test_a_token_file_without_a_token_is_an_error(tmp_path: Path) -> None:
    (found,) = examine([("Ray token", machine.token)], Subject(token_file=tmp_path / "gone"))
    assert (found.about, found.level) == ("Ray token", "error")
    assert "No such file or directory" in found.text
