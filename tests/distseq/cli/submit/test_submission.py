"""What a cluster is asked to run."""

import re
import shlex
from pathlib import Path

import pytest

from distseq.cli.main import cli, one_line_errors
from distseq.cli.submit.submission import Request, request
from tests.cluster.ray.head import free_port


def asked(folder: Path, job: str | None, *command: str, **options: str | bool) -> Request:
    return request(None if job is None else folder / job, options, command, folder, "python3")


def test_a_config_file_is_trained_from_where_it_lies_on_the_cluster_s_ray(tmp_path: Path) -> None:
    wanted = asked(tmp_path, "jobs/my job.toml", steps="5", json=True)
    assert re.fullmatch(r"my-job-[0-9a-f]{8}", wanted.job)
    line = "python3 -m distseq train 'jobs/my job.toml' --steps 5 --json --pool ray --address auto --out"
    assert wanted.entrypoint == f"{line} ~/distseq-runs/{wanted.job}"


def test_the_run_folder_is_quoted_for_the_cluster_s_shell(tmp_path: Path) -> None:
    assert asked(tmp_path, "a.toml", out="~/my runs/1").entrypoint.endswith(" --out ~/'my runs/1'")
    assert asked(tmp_path, "a.toml", out="/my runs/1").entrypoint.endswith(" --out '/my runs/1'")


def test_a_run_on_the_cluster_is_resumed(tmp_path: Path) -> None:
    wanted = asked(tmp_path, None, resume="/runs/1", workers="4")
    assert wanted.entrypoint == "python3 -m distseq train --workers 4 --pool ray --address auto --resume /runs/1"
    assert wanted.run == "/runs/1"


def test_a_command_arrives_word_by_word(tmp_path: Path) -> None:
    words = ("python", "-c", "print('a b; $HOME')")
    wanted = asked(tmp_path, None, *words)
    assert tuple(shlex.split(wanted.entrypoint)) == words
    assert wanted.run is None


@pytest.mark.parametrize(
    ("job", "command", "options", "reason"),
    [
        (None, (), {}, "submit needs a config file, --resume RUN, or a command after --"),
        ("a.toml", ("true",), {}, "either a config file with options of train, or a command after --: got both"),
        (
            None,
            ("true",),
            {"steps": "4"},
            "either a config file with options of train, or a command after --: got both",
        ),
        ("a.toml", (), {"pool": "local"}, "submit trains on the cluster's workers, --pool ray: got --pool local"),
        ("a.toml", (), {"out": "runs/1"}, "the run folder is on the cluster, .* got 'runs/1'"),
        ("../a.toml", (), {}, r"config file .*a\.toml is not in the working dir"),
    ],
)
def test_what_cannot_run_there_is_refused(
    tmp_path: Path, job: str | None, command: tuple[str, ...], options: dict[str, str | bool], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        asked(tmp_path, job, *command, **options)


def command_line(*words: str) -> int:
    return one_line_errors(lambda: cli(words, prog_name="distseq", standalone_mode=False))


JOB = '[[learner]]\nname = "a"\nmodel = "mine:build"\ndata = "aws:s3"\nbatch = 4\n'


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("submit job.toml --stepps 5", "No such option '--stepps'"),
        ("submit job.toml --steps many", "'many' is not a valid integer"),
        ("submit job.toml other.toml", "Got unexpected extra argument (other.toml)"),
        ("submit gone.toml", "cannot read config file"),
        ("submit wrong.toml", "unknown key 'lerner' in the config file"),
        ("submit job.toml", "model 'mine:build': mine.py is not in the working dir"),
        ("submit mine.toml --delays gone.npz", "delays 'gone.npz': gone.npz is not in the working dir"),
        ("submit job.toml --working-dir gone", "working dir gone is not a folder"),
        ("submit job.toml --token-file gone", "--token-file: cannot read a token from gone: No such file or directory"),
        ("submit job.toml --working-dir sub", "is not in the working dir"),
        ("submit ignored.toml", "is left out by an ignore file of the working dir"),
        ("submit -- true", "no Ray cluster at http://127.0.0.1:"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_submitted(
    words: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", f"http://127.0.0.1:{free_port()}")
    Path("sub").mkdir()
    for name in ("job.toml", "ignored.toml"):
        Path(name).write_text(JOB)
    Path(".rayignore").write_text("ignored.toml")
    Path("mine.toml").write_text(JOB.replace("mine:build", "torch.nn:Linear"))
    Path("wrong.toml").write_text(JOB.replace("learner", "lerner"))
    assert command_line(*words.split()) == 2
    said = capsys.readouterr()
    assert reason in said.err
    assert (said.out, len(said.err.splitlines())) == ("", 1)
