"""The wheel: what it holds, and that it works away from the source tree."""

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


def run(*command: str | Path, cwd: Path, path: Path | None = None) -> str:
    """What a command prints; it must succeed. `path` is put first on Python's path."""
    environment = os.environ | ({"PYTHONPATH": str(path)} if path else {})
    answer = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a wheel is built from, so that building leaves nothing in the tree and finds nothing old there."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("distseq", *FOLDERS, "tests"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ROOT.iterdir():
        if file.suffix in (".toml", ".md") or file.name == "LICENSE":
            shutil.copy(file, copy)
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without the network."""
    out = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-index", "--no-build-isolation")
    run(*pip, "--wheel-dir", out, source, cwd=out)
    (file,) = out.iterdir()
    return file


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel installed in it."""
    target = tmp_path_factory.mktemp("installed")
    pip = (sys.executable, "-m", "pip", "install", "--no-deps", "--no-index")
    run(*pip, "--target", target, wheel, cwd=target)
    return target


def test_the_wheel_holds_every_module_and_nothing_else(wheel: Path) -> None:
    names = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    modules = {path.relative_to(ROOT) for folder in ("distseq", *FOLDERS) for path in (ROOT / folder).rglob("*.py")}
    shipped = {path.as_posix() if path.parts[0] == "distseq" else f"distseq/{path.as_posix()}" for path in modules}
    assert names == shipped | {"distseq/py.typed", "distseq/config/schema.json"}


def test_the_wheel_carries_its_licence_and_its_command(wheel: Path) -> None:
    archive = ZipFile(wheel)
    texts = {Path(name).name: archive.read(name).decode() for name in archive.namelist() if ".dist-info/" in name}
    assert texts["LICENSE"] == (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "License-Expression: Apache-2.0\n" in texts["METADATA"]
    assert "distseq = distseq.cli.main:main\n" in texts["entry_points.txt"]


@pytest.mark.parametrize("form", ["installed", "wheel", "source"])
def test_it_works_from_another_folder(form: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    path: Path = request.getfixturevalue(form)
    names = ["distseq", "distseq.coding", "distseq.cluster", "distseq.kernels", "distseq.models"]
    code = f"import {', '.join(names)}, sys\nfor name in {names}: print(sys.modules[name].__file__)"
    files = run(sys.executable, "-c", code, cwd=tmp_path, path=path).splitlines()
    # An editable install of the tree under test would hide what is missing here.
    assert [file for file in files if not Path(file).is_relative_to(path)] == []
    assert "Usage" in run(sys.executable, "-m", "distseq", "--help", cwd=tmp_path, path=path)


@pytest.mark.parametrize("form", ["installed", "wheel"])
def test_it_stages_all_of_itself_for_a_cluster(
    form: str, wheel: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    path: Path = request.getfixturevalue(form)
    code = "from pathlib import Path; from distseq.cli.submit.package import stage; stage(Path('staged'))"
    run(sys.executable, "-c", code, cwd=tmp_path, path=path)
    files = {file.relative_to(tmp_path / "staged").as_posix() for file in tmp_path.rglob("*") if file.is_file()}
    assert files == {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}


def test_the_installed_command_answers(installed: Path, tmp_path: Path) -> None:
    assert "Usage" in run(installed / "bin" / "distseq", "--help", cwd=tmp_path, path=installed)
