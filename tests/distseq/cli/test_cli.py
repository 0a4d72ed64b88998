"""The command line: a user's mistake is one line on stderr and exit code 2, and leaves nothing behind."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from distseq.cli.main import cli, one_line_errors

ROOT = Path(__file__).resolve().parents[3]
JOB = """
[pool]
kind = "simulated"
workers = 4
[defaults]
model = "distseq.models.char_lstm:CharLSTM"
model_args = { hidden = 4 }
data = "text:text.txt"
data_args = { window = 4 }
batch = 8
[[learner]]
name = "a"
[[learner]]
name = "b"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a job, its data, traces good and bad, and a run folder that is taken."""
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("to be or not to be, that is the question. " * 40)
    Path("job.toml").write_text(JOB)
    Path("typo.toml").write_text(JOB.replace("workers = 4", "wrokers = 4"))
    Path("no-service.toml").write_text(JOB.replace("text:text.txt", "aws:s4"))
    Path("no-file.toml").write_text(JOB.replace("text:text.txt", "text:gone.txt"))
    Path("no-model.toml").write_text(JOB.replace("CharLSTM", "CharLSTN"))
    Path("no-optimizer.toml").write_text(JOB.replace("[defaults]", '[defaults]\noptimizer = "adamm"'))
    Path("no-schedule.toml").write_text(JOB.replace("[defaults]", '[defaults]\nschedule = "cosin"'))
    Path("no-steps.toml").write_text(JOB + "steps = 0\n")
    Path("bad.toml").write_text("[run\n")
    np.savez("good.npz", times=np.ones((3, 4)), load=0.0, slope=1.0)
    np.savez("flat.npz", times=np.ones(12), load=0.0, slope=1.0)
    np.savez("pickled.npz", times=np.array([[print, None]], dtype=object), load=0.0, slope=1.0)
    np.savez("unnamed.npz", np.ones((3, 4)))
    np.save("array.npy", np.ones((3, 4)))
    Path("taken").mkdir()
    Path("taken/summary.json").write_text("{}")
    return tmp_path


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


SIMULATE = "simulate --trace good.npz --models 4"
NONE = "simulate --profile none --workers 4"
TRAIN = "train job.toml --out new"

# command, what the line says
MISTAKES = [
    (f"{SIMULATE} --scheme gcc:1", "unknown scheme 'gcc'; known: uncoded, gc:"),
    (f"{SIMULATE} --scheme gc", "scheme 'gc': gc takes s, as in "),
    (f"{SIMULATE} --scheme gc:x", "scheme 'gc:x': 'x' is not a whole number"),
    (f"{SIMULATE} --scheme gc:1,r=2", "scheme 'gc:1,r=2': gc has no option 'r'; known: q, code"),
    (f"{SIMULATE} --scheme gc:1,code=raptor", "unknown code 'raptor'; known: fr, cyclic"),
    (f"{SIMULATE} --scheme srsgc:2,4,2", "SR-SGC needs B to divide W - 1: got B=2, W=4"),
    (f"{SIMULATE} --scheme msgc:2,2,1", "M-SGC needs 0 < B < W: got B=2, W=2"),
    (f"{SIMULATE} --scheme msgc:3,4,1", "msgc:3,4,1 has delay T=5 and needs at least T + 1 learners: got 4"),
    (f"{SIMULATE} --scheme gc:4", "an (n, s) code needs 0 <= s < n: got n=4, s=4"),
    (f"{SIMULATE} --scheme gc:1 --workers 5", "the trace has 4 workers, but 5 are needed"),
    (f"{SIMULATE} --scheme gc:1 --workers -1", "there must be at least one worker: got -1"),
    (f"{SIMULATE} --scheme gc:1 --workers many", "'many' is not a valid integer"),
    (f"{SIMULATE} --scheme gc:1 --jobs -5", "simulate needs at least one model and one job: got models=4, jobs=-5"),
    (f"{SIMULATE} --scheme gc:1 --closing soon", "closing must be safe or mu: got 'soon'"),
    (f"{SIMULATE} --scheme gc:1 --cutoff -1", "closing=safe needs a finite cutoff >= 0 seconds: got -1.0"),
    (f"{SIMULATE} --scheme gc:1 --closing mu --mu nan", "closing=mu needs a finite mu >= 0: got nan"),
    (f"{SIMULATE} --scheme gc:1 --unfinished gone", "unfinished must be one of lost, overlap, serial: got 'gone'"),
    (f"{SIMULATE} --scheme gc:1 --speed 3", "No such option"),
    (f"{SIMULATE} --scheduler rounds", "--scheduler rounds needs --scheme SCHEME"),
    (f"{SIMULATE} --objective speed", "the objective must be one of seconds, worker-seconds, price: got 'speed'"),
    (f"{SIMULATE} --prices message=cheap", "a price must be KEY=DOLLARS with DOLLARS >= 0, KEY one of worker_second, "),
    ("plan", "give delays by exactly one of --trace FILE, --profile NAME and --run RUN: got 0"),
    ("plan nowhere.toml", "cannot read config file nowhere.toml: No such file"),
    ("plan --profile none --models 0", "plan needs models >= 1: got 0"),
    ("plan --run nowhere", "nowhere is not a run folder: it has no journal.jsonl"),
    (f"{SIMULATE} --sweep --scheme gc:1", "--sweep tries every family: it takes no --scheme"),
    (f"{SIMULATE} --scheme gc:1 --slope -2", "load and slope must be finite and >= 0: got load=0.0, slope=-2.0"),
    (f"{SIMULATE} --scheme gc:1 --plot workers.gif", "a plot is written as .png, .svg, .pdf: got workers.gif"),
    (f"{SIMULATE} --scheme gc:1 --slope much", "'much' is not a valid float"),
    ("simulate --trace flat.npz --scheme gc:1", "`times` must be (rounds, workers): got shape (12,)"),
    ("simulate --trace pickled.npz --scheme gc:1", "pickled.npz is not a trace: Object arrays cannot be loaded"),
    ("simulate --trace unnamed.npz --scheme gc:1", "unnamed.npz is not a trace: the archive lacks load, slope, times"),
    (
        "simulate --trace array.npy --scheme gc:1",
        "array.npy is not a trace: the file holds a single array, not an .npz archive",
    ),
    ("simulate --trace job.toml --scheme gc:1", "job.toml is not a trace: "),
    ("simulate --trace . --scheme gc:1", ". is not a trace: "),
    ("simulate --trace gone.npz --scheme gc:1", "no trace file gone.npz"),
    ("simulate --profile storms --scheme gc:1", "delays 'storms' is neither a profile (none, bursts, "),
    (
        "simulate --profile bursts:base=x --scheme gc:1",
        "delay profile 'bursts:base=x': the only option is base=SECONDS",
    ),
    (
        f"{SIMULATE} --profile none --scheme gc:1",
        "give delays by exactly one of --trace FILE, --profile NAME and --run RUN: got 2",
    ),
    ("simulate --scheme gc:1", "give delays by exactly one of --trace FILE, --profile NAME and --run RUN: got 0"),
    ("simulat --trace good.npz", "No such command 'simulat'"),
    ("train", "Missing argument 'CONFIG'"),
    ("train gone.toml", "cannot read config file gone.toml: No such file or directory"),
    ("train bad.toml", "bad.toml is not TOML: "),
    ("train typo.toml", "typo.toml: unknown key 'wrokers' in [pool]; nearest: workers"),
    ("train no-service.toml", "no service 's4' in botocore; nearest: "),
    ("train no-file.toml", "gone.txt"),
    ("train no-model.toml", "module distseq.models.char_lstm has no 'CharLSTN'"),
    ("train no-optimizer.toml", "unknown optimizer 'adamm'; known: "),
    ("train no-schedule.toml", "unknown schedule 'cosin'; known: "),
    ("train no-steps.toml", "no-steps.toml: steps in [[learner]] 'b' must be at least 1: got 0"),
    (f"{TRAIN} --scheme gc:4", "an (n, s) code needs 0 <= s < n: got n=4, s=4"),
    (f"{TRAIN} --scheme srsgc:2,3,2", "srsgc:2,3,2 has delay T=2 and needs at least T + 1 learners: got 2"),
    (f"{TRAIN} --scheme raptor", "unknown scheme 'raptor'; known: uncoded, "),
    (f"{TRAIN} --workers -3", "workers in [pool] must be at least 1: got -3"),
    (f"{TRAIN} --steps 0", "steps in [run] must be at least 1: got 0"),
    (f"{TRAIN} --seed -1", "seed in [run] must be at least 0: got -1"),
    (f"{TRAIN} --pool cloud", "kind in [pool] must be 'ray', 'local' or 'simulated': got 'cloud'"),
    (f"{TRAIN} --scheme gc:1 --closing soon", "closing in [scheduler] must be 'safe' or 'mu': got 'soon'"),
    (f"{TRAIN} --delays storms", "delays 'storms' is neither a profile (none, bursts, "),
    (f"{TRAIN} --delays flat.npz", "`times` must be (rounds, workers): got shape (12,)"),
    (f"{TRAIN} --workers 5 --delays good.npz", "the trace has 4 workers, but 5 are needed"),
    (f"{TRAIN} --unfinished gone", "unfinished in [pool] must be 'lost', 'overlap' or 'serial': got 'gone'"),
    (f"{TRAIN} --watch", "No such option"),
    ("train job.toml --out taken", "run folder taken is not empty: choose another with --out"),
    ("train job.toml --out text.txt", "cannot write run folder text.txt: Not a directory"),
    ("train job.toml --out text.txt/new/run", "cannot write run folder text.txt/new/run: Not a directory"),
]


@pytest.mark.parametrize(("command", "message"), MISTAKES, ids=[command for command, _ in MISTAKES])
def test_a_mistake_is_one_line_and_two_and_leaves_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], command: str, message: str
) -> None:
    before = snapshot(folder)
    code = one_line_errors(lambda: cli(command.split(), prog_name="distseq", standalone_mode=False))
    out, err = capsys.readouterr()
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert message in err
    assert out == ""
    assert snapshot(folder) == before


def python(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (f"{SIMULATE} --scheme srsgc:2,4,2", "error: SR-SGC needs B to divide W - 1: got B=2, W=4\n"),
        ("train typo.toml", "error: typo.toml: unknown key 'wrokers' in [pool]; nearest: workers\n"),
    ],
)
def test_a_mistake_in_a_process_of_its_own_is_one_line_and_two(folder: Path, command: str, line: str) -> None:
    before = snapshot(folder)
    answer = python("-m", "distseq", *command.split(), cwd=folder)
    assert (answer.returncode, answer.stdout, answer.stderr) == (2, "", line)
    assert snapshot(folder) == before


def test_a_pool_that_gives_up_is_one_line_and_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("dead.npz", times=np.array([[1.0, np.nan, 1.0, 1.0]]), load=0.0, slope=1.0)
    command = "simulate --trace dead.npz --scheme uncoded"
    assert one_line_errors(lambda: cli(command.split(), prog_name="distseq", standalone_mode=False)) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: no candidate gets through: uncoded: worker 1 lost ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "command", [[], *([name] for name in sorted(cli.commands))], ids=lambda words: "".join(words) or "-"
)
def test_the_help_of_each_command_shows_an_example(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--help", "-h"):
        assert one_line_errors(lambda: cli([*command, option], prog_name="distseq", standalone_mode=False)) == 0  # noqa: B023
        out, err = capsys.readouterr()
        assert "Example: distseq " + "".join(command) in out
        assert err == ""


def test_the_bare_command_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert one_line_errors(lambda: cli([], prog_name="distseq", standalone_mode=False)) == 0
    out, err = capsys.readouterr()
    assert out.startswith("Usage: distseq ")
    assert all(name in out for name in cli.commands)
    assert err == ""


def test_simulate_prints_a_table_without_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = f"{SIMULATE} --scheme uncoded --scheme gc:3 --jobs 4"
    assert one_line_errors(lambda: cli(command.split(), prog_name="distseq", standalone_mode=False)) == 0
    out, err = capsys.readouterr()
    # 4 jobs of 1 + 1/4 and of 1 + 1 seconds
    head, titles, *lines = out.splitlines()
    assert head == "4 workers, 4 models, 4 jobs, closing=safe, unfinished=lost"
    assert titles.split() == ["scheme", "load", "T", "rounds", "waits", "seconds", "s/job", "worker-s/job"]
    assert [line.split()[0] for line in lines] == ["uncoded", "gc:3"]
    assert [line.split()[5] for line in lines] == ["5", "8"]
    assert err == ""
