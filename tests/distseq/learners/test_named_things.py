"""`model`, `data`, `evaluation` and `scheme` that name something else are refused before it is called, by every way in."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import distseq
from distseq.cli.main import cli, one_line_errors
from distseq.config.toml_file import from_dict, load_config, to_toml

MODEL = {"model": "distseq.models.char_lstm:CharLSTM", "model_args": {"hidden": 4}}
DATA = {"data": "text:text.txt", "data_args": {"window": 4}}
# What a call of each would leave behind.
CALLS = [
    ("os:system", {"command": "touch ran"}),
    ("subprocess:run", {"args": ["touch", "ran"]}),
    ("subprocess:Popen", {"args": ["touch", "ran"]}),
    ("builtins:exec", {}),
    ("builtins:open", {"file": "ran", "mode": "w"}),
    ("pathlib:Path", {}),
    ("shutil:copy", {"src": "text.txt", "dst": "ran"}),
    ("torch:load", {"f": "ran", "weights_only": False}),
    ("torch:save", {"obj": 1, "f": "ran"}),
    ("torch.hub:load", {"repo_or_dir": ".", "model": "x", "source": "local"}),
    ("torch.jit:load", {"f": "text.txt"}),
    ("numpy:memmap", {"filename": "ran", "mode": "w+", "shape": 4}),
    ("numpy:save", {"file": "ran", "arr": [1]}),
    ("pickle:loads", {}),
    ("os:path", {}),
    ("touches:short", {}),
    ("touches:system", {"command": "touch ran"}),
    ("distseq.training.train:train", {}),
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("text.txt").write_text("to be or not to be, that is the question. " * 20)
    Path("touches.py").write_text("from os import system\nshort = lambda: open('ran', 'w')\n")
    return tmp_path


def tables(**learner: Any) -> dict[str, Any]:
    return {
        "run": {"steps": 1, "checks": 0},
        "pool": {"kind": "simulated", "workers": 2},
        "scheduler": {"scheme": "uncoded"},
        "learner": [{"name": "a", "batch": 4, **MODEL, **DATA, **learner}],
    }


def command(*words: str) -> int:
    return one_line_errors(lambda: cli(words, prog_name="distseq", standalone_mode=False))


@pytest.mark.parametrize(("target", "args"), CALLS, ids=[target for target, _ in CALLS])
@pytest.mark.parametrize("key", ["model", "data", "torch", "evaluation"])
def test_what_makes_no_model_and_no_data_is_refused_before_it_is_called(
    key: str, target: str, args: dict[str, Any]
) -> None:
    if key in ("data", "evaluation") and target in ("torch:load", "torch:save"):
        return  # torch: is the prefix of torch data sets there, which the next key tries
    name = "data" if key == "torch" else key
    own = {name: f"torch:{target}" if key == "torch" else target, f"{name}_args": args}
    with pytest.raises(ValueError, match=r"^learner a: .* is refused, and nothing was called: ") as error:
        distseq.train(tables(**own), out="run", console=Console(file=io.StringIO()))
    assert "\n" not in str(error.value)
    assert not Path("ran").exists()
    assert not Path("run").exists()


@pytest.mark.parametrize("own", [{"model": "os:system", "model_args": {"command": "touch ran"}}, {"data": "os:system"}])
def test_the_doctor_and_a_resumed_run_call_nothing_either(
    own: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    own = own if "model" in own else own | {"data_args": {"command": "touch ran"}}
    distseq.train(tables(), out="run", console=Console(file=io.StringIO()))
    bad = from_dict(tables(**own))
    Path("job.toml").write_text(to_toml(bad))
    Path("run/config.toml").write_text(to_toml(bad))
    assert command("doctor", "job.toml", "--json") == 1
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert [one["text"] for one in findings if "is refused, and nothing was called" in one["text"]]
    assert command("train", "--resume", "run") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: learner a: ")
    assert error.count("\n") == 1
    assert not Path("ran").exists()


@pytest.mark.parametrize("scheme", ["os:system", "subprocess:Popen:1", "touches:short", "torch:load:1"])
def test_a_scheme_is_a_scheme(scheme: str) -> None:
    with pytest.raises(ValueError, match=r"of the standard library, which has no schemes|is not a subclass of distseq"):
        distseq.train(tables() | {"scheduler": {"scheme": scheme}}, out="run", console=Console(file=io.StringIO()))
    assert not Path("ran").exists()


def test_a_model_that_exits_while_it_is_built_is_one_line() -> None:
    Path("exits_when_built.py").write_text(
        "import sys\ndef build():\n    sys.exit(4)\ndef raises():\n    return {}['x']\n"
    )
    with pytest.raises(ValueError, match=r"^learner a: model 'exits_when_built:build' with {}: SystemExit: 4$"):
        distseq.train(tables(model="exits_when_built:build", model_args={}), out="run")
    with pytest.raises(ValueError, match=r"^learner a: model 'exits_when_built:raises' with {}: KeyError: 'x'$"):
        distseq.train(tables(model="exits_when_built:raises", model_args={}), out="run")


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("raise SystemExit", 2, "error: learner a: cannot import 'ended:Net': module ended ends the program when"),
        ("import argparse; argparse.ArgumentParser().parse_args()", 2, "error: learner a: cannot import 'ended:Net': "),
        ("raise KeyboardInterrupt", 130, "learner a: interrupted while module ended was imported"),
    ],
)
@pytest.mark.parametrize("key", ["model", "data"])
def test_a_module_that_ends_the_program_is_named_with_its_learner(
    key: str, text: str, code: int, line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["distseq", "train", "job.toml"])
    Path("ended.py").write_text(text)
    Path("job.toml").write_text(to_toml(from_dict(tables(**{key: "ended:Net", f"{key}_args": {}}))))
    assert load_config("job.toml")
    assert command("train", "job.toml", "--out", "run") == code
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    at = "data 'ended:Net' cannot be opened: ValueError: cannot" if key == "data" else "cannot"
    assert err.startswith(line.replace("cannot", at))
    assert not Path("run").exists()
