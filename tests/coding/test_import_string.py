"""A user's module that fails, exits or is interrupted while it is imported is named in one line."""

import logging
import sys
from pathlib import Path

import pytest

from distseq.coding.import_string import load_object


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.setattr(sys, "argv", ["distseq", "train", "job.toml"])


def module(name: str, text: str) -> None:
    sys.modules.pop(name, None)
    Path(f"{name}.py").write_text(text)


ARGPARSE = (
    "import argparse\np = argparse.ArgumentParser('own')\np.add_argument('--size', required=True)\np.parse_args()"
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "raise SystemExit",
            "module ends ends the program when it is imported: SystemExit; a program's own code belongs",
        ),
        (
            "raise SystemExit('no GPU')",
            "module ends ends the program when it is imported: SystemExit: no GPU; a program",
        ),
        ("import sys; sys.exit(3)", "module ends ends the program when it is imported: SystemExit: 3; a program's own"),
        ("quit()", "module ends ends the program when it is imported: SystemExit"),
        (
            ARGPARSE,
            "module ends ends the program when it is imported: SystemExit: 2; own: error: the following arguments are required: "
            "--size; a program's own code belongs behind if __name__ == '__main__'",
        ),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise ValueError('two\\nlines')", "ValueError: two lines"),
        ("import gone_for_good", "No module named 'gone_for_good'"),
        ("from os import gone", "ImportError: cannot import name 'gone' from 'os'"),
        ("x = (", "SyntaxError: '(' was never closed (ends.py, line 1)"),
        ("class E(BaseException): pass\nraise E('odd')", "E: odd"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("x = '\\0'\nassert x is None", "AssertionError"),
        ("pass", "module ends has no 'Net'"),
    ],
)
def test_what_goes_wrong_at_import_is_one_line(text: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    module("ends", text)
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the message is compared
        load_object("ends:Net")
    assert str(error.value).startswith(f"cannot import 'ends:Net': {message}")
    assert "\n" not in str(error.value)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("target", ["", ":", "m", "m:", ":n", ".m:n", "a..b:n", "a.:n", "..:n", "a\0b:n", "/etc/x:n"])
def test_what_is_no_import_string_is_one_line(target: str) -> None:
    with pytest.raises(ValueError, match="import") as error:
        load_object(target)
    assert "\n" not in str(error.value)


def test_an_interrupt_stays_one_and_names_the_module() -> None:
    module("stopped", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt, match=r"^interrupted while module stopped was imported$"):
        load_object("stopped:Net")


def test_what_a_module_writes_to_standard_error_is_written_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    module("talks", "import sys\nprint('warned', file=sys.stderr)\nclass Net: pass")
    assert load_object("talks:Net").__name__ == "Net"
    assert capsys.readouterr().err == "warned\n"


def test_a_log_handler_made_at_import_goes_on_writing(capsys: pytest.CaptureFixture[str]) -> None:
    module("logs", "import logging\nhandler = logging.StreamHandler()\nclass Net: pass")
    load_object("logs:Net")
    logging.getLogger("own").addHandler(sys.modules["logs"].handler)
    logging.getLogger("own").warning("later")
    assert capsys.readouterr().err == "later\n"


def test_a_file_that_an_installed_module_hides_is_named() -> None:
    module("numpy_hidden", "class Net: pass")
    Path("click.py").write_text("class Net: pass")
    hint = r"module click has no 'Net'; it is the installed one, .*, which hides .*click\.py: rename"
    with pytest.raises(ValueError, match=hint):
        load_object("click:Net")
