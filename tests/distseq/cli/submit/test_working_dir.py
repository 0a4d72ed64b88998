"""What travels to a cluster: distseq as a plain package, and nothing of a job left behind unsaid."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from distseq.cli.submit.package import excludes, stage
from distseq.cli.submit.working_dir import left_behind, too_large
from distseq.config.toml_file import from_dict

ROOT = Path(__file__).resolve().parents[4]
FOLDERS = ("distseq", "coding", "cluster", "kernels", "models")
MiB = 1 << 20


def test_the_staged_package_is_what_a_wheel_would_hold(tmp_path: Path) -> None:
    package = stage(tmp_path)
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    modules = [path.relative_to(ROOT) for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    wheel = {path.as_posix() if path.parts[0] == "distseq" else f"distseq/{path.as_posix()}" for path in modules}
    assert package == tmp_path / "distseq"
    data = {"distseq/py.typed", "distseq/config/schema.json", "distseq/models/data/events/flights_40k.npz"}
    assert files == wheel | data


def test_the_staged_package_works_alone(tmp_path: Path) -> None:
    stage(tmp_path / "staged")
    code = "import distseq.coding.schemes.registry, distseq.models; print(distseq.__file__, distseq.models.__file__)"
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": "staged"}, capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stderr
    assert all(Path(file).is_relative_to(tmp_path / "staged") for file in answer.stdout.split())


def test_a_distseq_of_the_working_dir_stays_behind(tmp_path: Path) -> None:
    always = excludes(tmp_path)
    (tmp_path / "distseq").mkdir()
    (tmp_path / "distseq.py").touch()
    assert set(excludes(tmp_path)) - set(always) == {"/distseq", "/distseq.py"}


def test_secrets_and_run_folders_stay_behind(tmp_path: Path) -> None:
    from distseq.cluster.ray.working_dir import contents

    stays = [".env", "sub/.env", ".env.local", ".envrc", ".netrc", ".ssh/id_rsa", "deploy.pem", "runs/a-1/weights/a.x"]
    stays += [
        f"{run}/{name}" for run in ("out", "deep/[red]x", "a b") for name in ("journal.jsonl", "config.toml", "x")
    ]
    goes = ["job.toml", "nets.py", "texts/runs/a.txt", "environment.py", "deep/r/x", "half/journal.jsonl", "env/x"]
    for name in (*stays, *goes):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert sorted(contents(tmp_path, excludes(tmp_path))) == sorted(goes)


def test_what_is_too_large_is_named_largest_first() -> None:
    sizes = {"a.py": 1, "data/x.bin": 300 * MiB, "data/y.bin": 300 * MiB, "old.zip": 200 * MiB, "b/c": 5 * MiB}
    assert too_large(sizes, 806 * MiB) is None
    said = too_large(sizes, 512 * MiB)
    assert said is not None
    assert said.startswith("holds 805 MiB, Ray sends at most 512: ")
    assert said.endswith("(data/ 600 MiB, old.zip 200 MiB, b/ 5 MiB)")


SENT = {"job.toml": 1, "mine.py": 1, "nets/deep.py": 1, "texts/a.txt": 1, "d.csv": 1, "delays.npz": 1}


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ({}, None),
        ({"model": "nets.deep:Net", "data": "folder:texts"}, None),
        ({"model": "torch.nn:Linear", "data": "aws:s3"}, None),
        ({"model": "distseq.models.char_lstm:CharLSTM", "data": "text:./texts/a.txt"}, None),
        ({"data": "csv:/on/every/host.csv"}, None),
        ({"data": "torch:mine:Set"}, None),
        ({"data": "mine:Set"}, None),
        ({"delays": "bursts:base=0.1"}, None),
        ({"delays": "delays.npz"}, None),
        ({"scheme": "mine:EveryOther:2"}, None),
        ({"scheme": "gc:1,code=cyclic"}, None),
        ({"scheme": "async:2,parts=8"}, None),
        ({"model": "yours:build"}, "learner a: model 'yours:build': yours.py is not in the working dir"),
        ({"model": "ignored:build"}, "learner a: model 'ignored:build': ignored.py is left out by an ignore file of"),
        ({"data": "csv:e.csv"}, "learner a: data 'csv:e.csv': e.csv is not in the working dir"),
        ({"data": "csv:../d.csv"}, "learner a: data 'csv:../d.csv': ../d.csv is not in the working dir"),
        ({"evaluation": "csv:e.csv"}, "learner a: evaluation 'csv:e.csv': e.csv is not in the working dir"),
        ({"data": "torch:yours:Set"}, "learner a: data 'torch:yours:Set': yours.py is not in the working dir"),
        ({"data": "yours.sets:Set"}, "learner a: data 'yours.sets:Set': yours.py is not in the working dir"),
        ({"delays": "x.npz"}, "delays 'x.npz': x.npz is not in the working dir"),
        ({"delays": "x.csv"}, "delays 'x.csv': x.csv is not in the working dir"),
        ({"scheme": "yours:EveryOther:2"}, "scheme 'yours:EveryOther:2': yours.py is not in the working dir"),
    ],
)
def test_files_that_a_job_would_miss_are_named(tmp_path: Path, change: dict[str, str], missing: str | None) -> None:
    (tmp_path / "ignored.py").touch()
    learner = {"name": "a", "model": "mine:build", "data": "csv:d.csv", "batch": 4}
    tables = {"delays": "pool", "scheme": "scheduler"}
    job: dict[str, Any] = {"learner": [learner | {k: v for k, v in change.items() if k not in tables}]}
    job |= {tables[key]: {key: value} for key, value in change.items() if key in tables}
    said = list(left_behind(from_dict(job), SENT, tmp_path))
    if missing is None:
        assert said == []
    else:
        assert [line[: len(missing)] for line in said] == [missing]
