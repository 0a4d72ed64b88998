"""`--json` is alone on standard output; odd names, files and packages are one line each."""

import importlib.util
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

import distseq
from distseq.cli.broken_packages import broken_package
from distseq.cli.json_output import JsonLog, only_json
from distseq.cli.main import cli, one_line_errors

ROOT = Path(__file__).resolve().parents[3]
NOISY = """
import os, sys, warnings
import torch
print("at import")
os.write(1, b"from C at import\\n")
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        print("built")
        warnings.warn("careful")
        self.a = torch.nn.Parameter(torch.ones(3))
    def per_sample_loss(self, batch):
        print("computed")
        os.write(1, b"from C\\n")
        return (batch["inputs"].float() @ self.a).square()
class Data:
    fingerprint = "x"
    def __len__(self):
        return 16
    def batch(self, ids):
        print("read")
        return {"inputs": torch.tensor([[float(i), 1.0, 2.0] for i in ids])}
import atexit
atexit.register(print, "at exit")
"""
JOB = """
[run]
steps = 2
checks = 0
[pool]
kind = "simulated"
workers = 2
[scheduler]
scheme = "uncoded"
[[learner]]
name = "a"
model = "noisy:Net"
data = "noisy:Data"
batch = 4
"""


def command(*words: str) -> int:
    return one_line_errors(lambda: cli(words, prog_name="distseq", standalone_mode=False))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("noisy.py").write_text(NOISY)
    Path("job.toml").write_text(JOB)
    sys.modules.pop("noisy", None)
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["train", "job.toml", "--out", "run"], id="train"),
        pytest.param(["doctor", "job.toml"], id="doctor", marks=pytest.mark.slow),
    ],
)
def test_json_is_alone_on_standard_output(folder: Path, words: list[str]) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    run = [sys.executable, "-m", "distseq", *words, "--json"]
    ended = subprocess.run(run, cwd=folder, env=environment, capture_output=True, text=True, timeout=200)
    assert isinstance(json.loads(ended.stdout), dict), ended.stdout
    assert ended.stdout.count("\n") == 1
    for said in ("at import", "from C at import", "built", "computed", "from C", "read", "at exit"):
        assert said in ended.stderr.splitlines()


def test_what_is_printed_in_between_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with only_json(True) as write:
        print("noise")
        write("{}")
    assert capsys.readouterr() == ("{}\n", "noise\n")
    with only_json(False) as write:
        print("line")
        write("{}")
    assert capsys.readouterr() == ("line\n{}\n", "")


def test_of_a_job_s_log_the_summary_goes_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    log = JsonLog()
    for piece in ("job 1/2\nof a mod", 'el\n{not json}\n[1]\n{}\nmore\n{"jobs"', ": 2}\nat exit"):
        log.write(piece)
    log.close()
    assert capsys.readouterr() == ('{"jobs": 2}\n', "job 1/2\nof a model\n{not json}\n[1]\nmore\n{}\nat exit\n")


def test_without_a_result_nothing_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="wrong"), only_json(True):
        raise ValueError("wrong")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["[red]x", "[/x]", ":smile:", "it's $HOME", "ünï"])
def test_odd_names_of_run_folders_are_printed_as_they_are(folder: Path, name: str) -> None:
    for console in (
        Console(file=io.StringIO(), width=500),
        Console(file=io.StringIO(), width=500, force_terminal=True, color_system=None),
    ):
        distseq.train("job.toml", out=name, console=console) if not Path(name).exists() else None
        distseq.train(resume=name, console=console)
        text = console.file.getvalue()  # type: ignore[attr-defined]
        assert f"nothing to do: {name} is complete" in text


def test_the_summary_prints_the_folder_as_it_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("train", "job.toml", "--out", "[red]x") == 0
    assert "run folder: [red]x" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xef\xbb\xbf" + JOB.encode(), ""),
        (JOB.replace("\n", "\r\n").encode(), ""),
        (b"\xef\xbb\xbf" + JOB.replace("\n", "\r\n").encode(), ""),
        (JOB.encode("utf-16"), "is not TOML: it is not UTF-8 text (invalid start byte at byte 0)"),
        (JOB.encode("utf-16-le"), "is not TOML: "),
        (JOB.encode() + b"# \xff", "is not TOML: it is not UTF-8 text (invalid start byte at byte "),
        (JOB.encode() + b"\0", "is not TOML: "),
        (b"a = " + b"[" * 100_000, "its tables and lists are nested too deeply"),
        (b"a = " + b"[" * 5000 + b"]" * 5000, "its tables and lists are nested too deeply"),
        (JOB.encode() + b"model_args = " + b"{a=" * 200 + b"1" + b"}" * 200, "must be nested at most 64 deep"),
        (JOB.encode() + b"model_args.x" + b".a" * 3000 + b" = 1", "a key may have at most 100 parts"),
    ],
)
def test_a_file_of_another_editor_is_read_or_refused_in_one_line(
    folder: Path, data: bytes, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("job.toml").write_bytes(data)
    code = command("train", "job.toml", "--out", "run", "--json")
    out, err = capsys.readouterr()
    if not message:
        assert code == 0
        assert json.loads(out)["jobs"] == 2
        return
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert len(err) < 1000
    assert not Path("run").exists()


def test_deep_arguments_in_python_are_refused() -> None:
    deep: list[object] = []
    for _ in range(10_000):
        deep = [deep]
    circle: list[object] = []
    circle.append(circle)
    for value in (deep, circle):
        with pytest.raises(ValueError, match=r"^model_args in \[\[learner\]\] 'a' must be nested at most 64 deep"):
            distseq.train(
                {"learner": [{"name": "a", "model": "m:M", "data": "x", "batch": 1, "model_args": {"x": value}}]},
                out="run",
            )


def raised_by(name: str, text: str, tmp_path: Path) -> BaseException:
    path = tmp_path / f"{name}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    sys.path.insert(0, str(tmp_path))
    try:
        importlib.import_module(name)
    except BaseException as error:
        return error
    finally:
        sys.path.remove(str(tmp_path))
    raise AssertionError(f"{name} can be imported")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "raise ImportError('libfoo.so.1: cannot open')",
            "cannot be imported: ImportError: libfoo.so.1: cannot open; ",
        ),
        ("raise OSError('libtorch.so')", "cannot be imported: OSError: libtorch.so; "),
        ("import os\nos.gone", "cannot be imported: AttributeError: module 'os' has no attribute 'gone'; "),
        ("raise RuntimeError('numpy 3\\nis too new')", "cannot be imported: RuntimeError: numpy 3 is too new; "),
    ],
)
def test_a_broken_package_is_named_with_the_command_that_mends_it(text: str, message: str, tmp_path: Path) -> None:
    line = broken_package(raised_by("broken_package_of_test", text, tmp_path))
    assert line is not None
    assert line.startswith(f"broken_package_of_test {message}")
    assert line.endswith("python -m pip install --upgrade 'broken_package_of_test'")
    assert "\n" not in line


def test_a_missing_package_is_named_and_other_errors_are_left_alone(tmp_path: Path) -> None:
    assert broken_package(raised_by("needs_another", "import gone_for_good", tmp_path)) == (
        "gone_for_good is not installed: python -m pip install --upgrade 'gone_for_good'"
    )
    assert broken_package(KeyError("x")) is None
    with pytest.raises(ZeroDivisionError) as error:
        _ = 1 / 0
    assert broken_package(error.value) is None


SLOW = [pytest.param(package, marks=pytest.mark.slow) for package in ("ray", "pydantic", "matplotlib")]


@pytest.mark.parametrize("package", ["numba", "safetensors", *SLOW])
def test_a_command_that_needs_a_broken_package_ends_in_one_line(package: str, tmp_path: Path) -> None:
    words = {
        "numba": "simulate --profile none --workers 2",
        "matplotlib": "simulate --profile none --workers 2 --jobs 2 --plot x.png",
        "ray": "profile --pool ray --workers 1 --hosts 1 --out t.npz",
    }.get(package, "train job.toml --out run")
    (tmp_path / "job.toml").write_text(JOB)
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / package).mkdir()
    (tmp_path / "first" / package / "__init__.py").write_text("raise ImportError('libfoo.so.1 is missing')")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path / 'first'}:{ROOT}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "distseq", *words.split()]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
    assert (ended.returncode, ended.stdout) == (2, ""), ended.stderr
    assert ended.stderr.startswith(f"error: {package} cannot be imported: ImportError: libfoo.so.1 is missing; ")
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()
