"""Wheel, sdist, archive and checkout: what they hold, and that each works away from the source tree."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("coding", "cluster", "kernels", "models")
DATA = {"distseq/py.typed", "distseq/config/schema.json", "distseq/models/data/events/flights_40k.npz"}


def run(*command: str | Path, cwd: Path, path: Path | None = None) -> str:
    """What a command prints; it must succeed. `path` is put first on Python's path."""
    environment = os.environ | ({"PYTHONPATH": str(path)} if path else {})
    answer = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


def files_of(wheel: Path) -> dict[str, bytes]:
    """What a wheel installs, without its metadata."""
    archive = ZipFile(wheel)
    return {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a wheel is built from, so that building leaves nothing in the tree and finds nothing old there."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("distseq", *FOLDERS, "tests"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ROOT.iterdir():
        if file.suffix in (".toml", ".md", ".txt") or file.name in ("LICENSE", "Makefile"):
            shutil.copy(file, copy)
    return copy


@pytest.fixture(scope="module")
def archive(source: Path) -> Path:
    """What `make zip` leaves in dist/, built once and without the network."""
    # In place of an environment of its own: this interpreter, marked as installed.
    (source / ".installed").touch()
    run("make", "zip", f"BIN={Path(sys.executable).parent}", "INSTALLED=.installed", "PIP_NO_INDEX=1", cwd=source)
    return source / "dist" / "distseq.zip"


@pytest.fixture(scope="module")
def wheel(archive: Path) -> Path:
    (file,) = archive.parent.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel installed in it."""
    target = tmp_path_factory.mktemp("installed")
    pip = (sys.executable, "-m", "pip", "install", "--no-deps", "--no-index")
    run(*pip, "--target", target, wheel, cwd=target)
    return target


def test_the_wheel_holds_every_module_and_nothing_else(wheel: Path) -> None:
    names = set(files_of(wheel))
    modules = {path.relative_to(ROOT) for folder in ("distseq", *FOLDERS) for path in (ROOT / folder).rglob("*.py")}
    shipped = {path.as_posix() if path.parts[0] == "distseq" else f"distseq/{path.as_posix()}" for path in modules}
    assert names == shipped | DATA


def test_the_wheel_carries_its_licence_and_its_command(wheel: Path) -> None:
    archive = ZipFile(wheel)
    texts = {Path(name).name: archive.read(name).decode() for name in archive.namelist() if ".dist-info/" in name}
    assert texts["LICENSE"] == (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "License-Expression: Apache-2.0\n" in texts["METADATA"]
    assert "distseq = distseq.cli.main:main\n" in texts["entry_points.txt"]


def test_a_wheel_of_the_source_distribution_holds_the_same_files(wheel: Path, source: Path, tmp_path: Path) -> None:
    hook = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"
    run(sys.executable, "-c", hook, "build_sdist", tmp_path, cwd=source)
    (sdist,) = tmp_path.glob("*.tar.gz")
    shutil.unpack_archive(sdist, tmp_path, filter="data")
    run(sys.executable, "-c", hook, "build_wheel", tmp_path, cwd=tmp_path / sdist.name.removesuffix(".tar.gz"))
    (again,) = tmp_path.glob("*.whl")
    assert files_of(again) == files_of(wheel)


@pytest.mark.parametrize("form", ["installed", "archive", "source"])
def test_it_works_from_another_folder(form: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    path: Path = request.getfixturevalue(form)
    names = ["distseq", "distseq.coding", "distseq.cluster", "distseq.kernels", "distseq.models"]
    code = f"import {', '.join(names)}, sys\nfor name in {names}: print(sys.modules[name].__file__)"
    files = run(sys.executable, "-c", code, cwd=tmp_path, path=path).splitlines()
    # An editable install of the tree under test would hide what is missing here.
    assert [file for file in files if not Path(file).is_relative_to(path)] == []
    assert "Usage" in run(sys.executable, "-m", "distseq", "--help", cwd=tmp_path, path=path)


@pytest.mark.parametrize("form", ["installed", "archive"])
def test_it_stages_all_of_itself_for_a_cluster(
    form: str, wheel: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    path: Path = request.getfixturevalue(form)
    code = "from pathlib import Path; from distseq.cli.submit.package import stage; stage(Path('staged'))"
    run(sys.executable, "-c", code, cwd=tmp_path, path=path)
    files = {file.relative_to(tmp_path / "staged").as_posix() for file in tmp_path.rglob("*") if file.is_file()}
    assert files == set(files_of(wheel))


def test_the_installed_command_answers(installed: Path, tmp_path: Path) -> None:
    assert "Usage" in run(installed / "bin" / "distseq", "--help", cwd=tmp_path, path=installed)


SIMULATE = ("simulate", "--profile", "bursts", "--workers", "8", "--jobs", "8", "--json", "--scheme")


def test_the_archive_runs_and_reads_its_own_sources(archive: Path, tmp_path: Path) -> None:
    figures = json.loads(run(sys.executable, archive, *SIMULATE, "gc:1", cwd=tmp_path))
    assert figures == json.loads(run(sys.executable, "-m", "distseq", *SIMULATE, "gc:1", cwd=tmp_path, path=ROOT))
    code = "from distseq.scheduling.replay.pool import VERSION; print(VERSION)"
    versions = {run(sys.executable, "-c", code, cwd=tmp_path, path=path) for path in (archive, ROOT)}
    assert len(versions) == 1


def test_processes_that_the_archive_starts_find_it(archive: Path, tmp_path: Path) -> None:
    # Ray's workers and the forkserver take their path from the environment.
    code = (
        "import distseq.cli.main, os; distseq.cli.main.main = lambda: print(os.environ['PYTHONPATH']); import runpy; "
    )
    code += f"runpy.run_path({str(archive)!r}, run_name='__main__')"
    assert run(sys.executable, "-c", code, cwd=tmp_path, path=tmp_path).strip() == f"{archive}{os.pathsep}{tmp_path}"


def test_a_checkout_without_links_says_so_in_one_line(source: Path, tmp_path: Path) -> None:
    """git with core.symlinks=false leaves a file that holds what the link points to."""
    (tmp_path / "distseq").mkdir()
    shutil.copy(source / "distseq" / "__init__.py", tmp_path / "distseq")
    (tmp_path / "distseq" / "coding").write_text("../coding")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    answer = subprocess.run(
        [sys.executable, "-c", "import distseq"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert answer.returncode == 1
    last = answer.stderr.splitlines()[-1]
    assert last.startswith(f"ImportError: {tmp_path / 'distseq' / 'coding'} is a file and must be a symbolic link")
    assert "git config core.symlinks true && git checkout -- distseq/coding " in last


def test_git_makes_the_links_again_where_it_had_made_files(tmp_path: Path) -> None:
    """The way out that the message tells."""
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b")
    (tmp_path / "distseq").mkdir()
    (tmp_path / "coding").mkdir()
    (tmp_path / "distseq" / "coding").symlink_to("../coding")
    for command in (("init", "-q"), ("add", "."), ("commit", "-qm", "links")):
        run(*git, *command, cwd=tmp_path)
    link = tmp_path / "distseq" / "coding"
    link.unlink()
    run("git", "config", "core.symlinks", "false", cwd=tmp_path)
    run("git", "checkout", "--", "distseq/coding", cwd=tmp_path)
    assert not link.is_symlink()
    run("git", "config", "core.symlinks", "true", cwd=tmp_path)
    run("git", "checkout", "--", "distseq/coding", cwd=tmp_path)
    assert link.readlink() == Path("../coding")
