"""A run that is broken off anywhere and resumed ends with the weights of a run without a break."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from distseq.artifacts.checkpoint import numbered
from distseq.cluster.errors import PoolError
from distseq.cluster.simulated import SimulatedPool
from distseq.config.toml_file import load_config
from distseq.engine.journal import read_journal
from distseq.engine.run_history import run_history
from tests.distseq.artifacts.crashing import (
    JOBS,
    STEPS,
    CrashAfter,
    applied,
    assert_little_redone,
    assert_same_bits,
    command,
    crashed,
    crashes,
    train,
    weights,
)

ROOT = Path(__file__).resolve().parents[3]


def assert_crash_leaves_no_trace(job: Path, jobs: int, whole: Callable[..., list[np.ndarray]], **options: Any) -> None:
    run = crashed(job, jobs, f"run-{jobs}", **options)
    result, _ = train(resume=run)
    assert_same_bits(weights(result), whole(**options))
    assert_little_redone(run)
    assert result.summary["jobs"] == JOBS
    shutil.rmtree(run)


# Each scheme, and crashes at the first job, in the middle and at the last; every scheme after every job is `long`.
@pytest.mark.parametrize(
    ("scheme", "jobs"),
    [("uncoded", 2), ("gc:2", 23), ("srsgc:1,2,3", 7), ("msgc:1,2,2", 1), ("msgc:1,2,2", JOBS), ("msgc:1,3,3", 14)],
)
def test_a_crash_and_a_resume_leave_no_trace(
    job: Path, scheme: str, jobs: int, whole: Callable[..., list[np.ndarray]]
) -> None:
    assert_crash_leaves_no_trace(job, jobs, whole, scheme=scheme)


@pytest.mark.long
@pytest.mark.parametrize("scheme", ["uncoded", "gc:2", "srsgc:1,2,3", "msgc:1,2,2", "msgc:1,3,3"])
def test_a_crash_after_any_job_leaves_no_trace(job: Path, scheme: str, whole: Callable[..., list[np.ndarray]]) -> None:
    for jobs in range(1, JOBS + 1):
        assert_crash_leaves_no_trace(job, jobs, whole, scheme=scheme)


def test_a_run_may_crash_again_and_again(job: Path, whole: Callable[..., list[np.ndarray]]) -> None:
    run = crashed(job, 7)
    for jobs in (2, 5, 1, 4):
        with crashes():
            train(resume=run, watchers=[CrashAfter(jobs)])
    result, _ = train(resume=run)
    assert_same_bits(weights(result), whole())
    kinds = Counter(record["kind"] for record in read_journal(run / "journal.jsonl"))
    assert (kinds["run"], kinds["resume"]) == (1, 5)


def test_between_checkpoints_fewer_jobs_than_every_are_redone(
    job: Path, whole: Callable[..., list[np.ndarray]]
) -> None:
    job.write_text(job.read_text().replace("every = 1", "every = 8"))
    run = crashed(job, 21)
    assert [number for number, _ in numbered(run / "checkpoints")] == [16, 8, 0]
    result, _ = train(resume=run)
    assert_same_bits(weights(result), whole())
    assert sum(count - 1 for count in applied(run).values()) == 5
    assert result.summary["jobs"] == JOBS
    history = run_history(read_journal(run / "journal.jsonl"), dict.fromkeys(("adam", "momentum", "clipped"), STEPS))
    assert history.jobs == len(applied(run)) == JOBS, "each job counts once"
    assert {len(losses) for losses in history.losses.values()} == {STEPS}


def test_the_seconds_of_all_pools_and_the_jobs_that_count_are_summed(job: Path) -> None:
    run = crashed(job, 11)
    before = run_history(read_journal(run / "journal.jsonl"), dict.fromkeys(("adam", "momentum", "clipped"), STEPS))
    assert before.jobs == 11
    result, _ = train(resume=run)
    after = run_history(read_journal(run / "journal.jsonl"), dict.fromkeys(("adam", "momentum", "clipped"), STEPS))
    assert after.jobs == JOBS
    assert after.seconds == pytest.approx(result.summary["total_seconds"], abs=1e-4)
    assert after.seconds > before.seconds
    assert after.rounds == result.summary["rounds"] > before.rounds


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "options",
    [
        {"workers": 5},
        {"scheme": "gc:3"},
        {"scheme": "gc:2,code=cyclic", "workers": 7},
        {"scheduler": "pipeline", "parts": 5, "workers": 6},
    ],
)
def test_resuming_with_other_workers_or_another_scheme_is_exact(job: Path, dtype: str, options: dict[str, Any]) -> None:
    job.write_text(job.read_text().replace("checks = 0", f'checks = 0\ndtype = "{dtype}"'))
    reference, _ = train(job, out=job.parent / "whole")
    run = crashed(job, 13)
    result, _ = train(resume=run, delays="heavy-tail:base=0.1", **options)
    tolerance = {"float32": 1e-6, "float64": 1e-12}[dtype]
    for a, b in zip(weights(result), weights(reference), strict=True):
        assert np.linalg.norm(a - b) / np.linalg.norm(b) <= tolerance
    config = load_config(run / "config.toml")
    assert config.pool.workers == options.get("workers", 8)
    # What a pipeline does not read is left out, so that the file can be trained again.
    assert config.scheduler.scheme == ("" if "scheduler" in options else options.get("scheme", "msgc:1,2,2"))
    assert config.scheduler.kind == options.get("scheduler", "rounds")


@pytest.mark.ray
def test_a_run_that_broke_in_the_simulator_goes_on_on_ray_to_the_same_bits(
    job: Path, ray_session: None, whole: Callable[..., list[np.ndarray]]
) -> None:
    run = crashed(job, 14)
    result, _ = train(resume=run, pool="ray", delays="bursts:base=0.01")
    assert_same_bits(weights(result), whole())
    assert_little_redone(run)


def test_a_pipelined_run_that_is_broken_twice_ends_with_the_same_bits_and_may_end_in_rounds(job: Path) -> None:
    job.write_text(job.read_text().replace('scheme = "msgc:1,2,2"', 'kind = "pipeline"\nparts = 3'))
    reference, _ = train(job, out=job.parent / "whole")
    run = crashed(job, 7)
    with crashes():
        train(resume=run, watchers=[CrashAfter(9)])
    result, _ = train(resume=run)
    assert_same_bits(weights(result), weights(reference))
    assert result.summary["jobs"] == JOBS
    other = crashed(job, 13, "other")
    in_rounds, _ = train(resume=other, scheme="gc:3")
    assert (load_config(other / "config.toml").scheduler.kind, in_rounds.summary["jobs"]) == ("rounds", JOBS)


def test_where_learners_end_at_different_steps_a_resumed_run_is_exact_to_rounding(job: Path) -> None:
    # The scheme moves to a smaller delay when the short learner has ended, and a resumed run does so at another job.
    job.write_text(job.read_text().replace('name = "momentum"', 'name = "momentum"\nsteps = 3'))
    job.write_text(job.read_text().replace(f"steps = {STEPS}", "steps = 5").replace("msgc:1,2,2", "msgc:1,3,3"))
    reference = weights(train(job, out=job.parent / "whole")[0])
    for jobs in (5, 11, 12):
        result, _ = train(resume=crashed(job, jobs, f"run-{jobs}"))
        for a, b in zip(weights(result), reference, strict=True):
            assert np.linalg.norm(a - b) / np.linalg.norm(b) <= 1e-6


def test_more_steps_are_more_of_the_same(job: Path, whole: Callable[..., list[np.ndarray]]) -> None:
    train(job, out=job.parent / "run", steps=4)
    result, _ = train(resume=job.parent / "run", steps=STEPS)
    assert_same_bits(weights(result), whole())


def test_a_complete_run_has_nothing_to_do(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = job.parent / "run"
    first, _ = train(job, out=run)
    files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    again, printed = train(resume=run)
    assert printed == f"nothing to do: {run} is complete, {JOBS} jobs\n"
    assert_same_bits(weights(again), weights(first))
    assert again.summary == first.summary
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == files
    assert command("train", "--resume", str(run)) == 0
    assert "nothing to do" in " ".join(capsys.readouterr().out.split())


def test_a_run_killed_before_its_weights_were_saved_ends_properly(
    job: Path, whole: Callable[..., list[np.ndarray]]
) -> None:
    run = job.parent / "run"
    train(job, out=run)
    shutil.rmtree(run / "weights")
    (run / "summary.json").unlink()
    result, _ = train(resume=run)
    assert_same_bits(weights(result), whole())
    assert len(list((run / "weights").iterdir())) == 3
    assert json.loads((run / "summary.json").read_text())["jobs"] == JOBS


def test_a_half_written_last_line_of_the_journal_is_cut(job: Path, whole: Callable[..., list[np.ndarray]]) -> None:
    run = crashed(job, 9)
    with open(run / "journal.jsonl", "a") as file:
        file.write('{"kind":"round","index":12,"arri')
    result, _ = train(resume=run)
    assert_same_bits(weights(result), whole())
    assert_little_redone(run)


def given_up_after(jobs: int) -> Callable[..., np.ndarray]:
    """`collect` of a pool that gives up after so many jobs."""
    left, collect = iter(range(jobs)), SimulatedPool.collect

    def collected(*job: Any) -> np.ndarray:
        if next(left, None) is None:
            raise PoolError("no more")
        return collect(*job)

    return collected


def test_a_pool_that_gives_up_leaves_a_checkpoint_and_says_how_to_go_on(
    job: Path, whole: Callable[..., list[np.ndarray]]
) -> None:
    job.write_text(job.read_text().replace("every = 1", "every = 0"))
    run = job.parent / "run"
    with (
        patch.object(SimulatedPool, "collect", given_up_after(12)),
        pytest.raises(PoolError, match=f"no more; go on with: distseq train --resume {run}"),
    ):
        train(job, out=run)
    result, _ = train(resume=run)
    assert_same_bits(weights(result), whole())
    assert max(applied(run).values()) == 1


def test_another_run_s_checkpoint_is_refused(job: Path) -> None:
    run, other = crashed(job, 9), crashed(job, 9, "other", seed=1)
    shutil.rmtree(run / "checkpoints")
    shutil.copytree(other / "checkpoints", run / "checkpoints")
    with pytest.raises(ValueError, match="belongs to a run with different learners, data, seed or dtype"):
        train(resume=run)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("hidden = 6", "hidden = 7", r"learner adam: embedding.weight of its model is float32 \(97, 7\)"),
        ('name = "clipped"', 'name = "else"', "has the learners adam, momentum, clipped, the configuration has adam, "),
        ("batch = 20", "batch = 21", "belongs to a run with different learners"),
        ('dtype = "float32"', 'dtype = "float64"', r"of its model is float64 .*, but float32 .* in the checkpoint"),
    ],
)
def test_a_changed_configuration_is_refused(job: Path, old: str, new: str, message: str) -> None:
    run = crashed(job, 5)
    text = (run / "config.toml").read_text()
    assert old in text
    (run / "config.toml").write_text(text.replace(old, new))
    before = (run / "journal.jsonl").read_bytes()
    with pytest.raises(ValueError, match=message):
        train(resume=run)
    assert (run / "journal.jsonl").read_bytes() == before


def test_what_cannot_be_resumed_is_one_line_and_two(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = crashed(job, 9)
    for words, message in (
        (["--resume", "gone"], "cannot read config file gone/config.toml: No such file or directory"),
        ([str(job), "--resume", str(run)], "train needs either a configuration (or learners) or resume=RUN"),
        (["--resume", str(run), "--out", "x"], "a resumed run writes to its own folder"),
        (["--resume", str(run), "--seed", "4"], "belongs to a run with different learners, data, seed or dtype"),
        (["--resume", str(run), "--steps", "2"], "learner adam has already made 3 steps in the checkpoint"),
        (["--resume", str(run), "--workers", "0"], "workers in [pool] must be at least 1: got 0"),
    ):
        assert command("train", *words) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert message in err
    shutil.rmtree(run / "checkpoints")
    assert command("train", "--resume", str(run)) == 2
    assert "no checkpoint in " in capsys.readouterr().err


def test_the_steps_of_a_run_with_a_schedule_cannot_change(job: Path) -> None:
    job.write_text(job.read_text().replace("[[learner]]", '[[learner]]\nschedule = "cosine"', 1))
    run = crashed(job, 4)
    with pytest.raises(ValueError, match=r"its schedule has .* steps in the checkpoint, but 99 now"):
        train(resume=run, steps=99)
    train(resume=run)
