"""Measured delays as traces."""

import json
from pathlib import Path

import numpy as np
import pytest

from distseq.cli.main import cli, one_line_errors
from distseq.cluster.errors import PoolError
from distseq.cluster.local.pool import local_pool
from distseq.cluster.trace import Trace, load_trace
from distseq.cluster.work import WorkSpec
from distseq.simulation.measure import probe, probe_spec, run_trace
from distseq.simulation.simulate import Setting, simulate


def command(line: str) -> int:
    return one_line_errors(lambda: cli(line.split(), prog_name="distseq", standalone_mode=False))


@pytest.mark.alone
def test_a_probe_finds_the_delays_that_were_injected() -> None:
    injected = np.random.default_rng(0).uniform(0.1, 0.5, (6, 4))
    pool = local_pool(4, probe_spec(0.01), hosts=4, delays=Trace(injected, 0.0, 0.0))
    try:
        measured = probe(pool, 4, rounds=6)
    finally:
        pool.close()
    assert measured.times.shape == (6, 4)
    assert (measured.times > injected - 0.01).all(), "a message cannot arrive before its delay is over"
    assert np.median(measured.times / injected) < 1.25
    assert measured.slope == pytest.approx(4 * 0.01, rel=0.5)  # each of four workers computes a quarter of a batch


def test_a_probe_that_fails_is_no_measurement() -> None:
    pool = local_pool(2, WorkSpec("distseq.cluster.probe:Probe", '{"fail_on": 1}'), hosts=1)
    try:
        with pytest.raises(
            PoolError, match=r"probe failed at step 0 on host-0 on .*: ValueError: sample 1 cannot be read"
        ):
            probe(pool, 2, rounds=3)
    finally:
        pool.close()


def test_a_pool_is_probed_from_the_command_line_and_simulated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "measured.npz"
    assert command(f"profile --pool local --workers 3 --hosts 1 --rounds 5 --seconds 0.005 --out {out}") == 0
    assert "5 invocations of each of 3 workers" in capsys.readouterr().out
    assert load_trace(out).times.shape == (5, 3)
    assert command(f"simulate --trace {out} --scheme gc:1 --json") == 0


def test_a_simulated_run_gives_back_its_own_seconds(tmp_path: Path, job: Path) -> None:
    """Profile of a run under `uncoded`, whose every invocation is seen, replayed: the same seconds per job."""
    import distseq

    result = distseq.train(job, out=tmp_path / "run", scheme="uncoded", delays="heavy-tail")
    assert command(f"profile --run {result.folder} --out {tmp_path / 'm.npz'}") == 0
    trace, jobs = load_trace(tmp_path / "m.npz"), result.summary["jobs"]
    replayed = simulate(Setting(trace, models=2, jobs=jobs, unfinished="serial", arrival="row"), "uncoded")
    assert replayed["total_seconds"] == pytest.approx(result.summary["total_seconds"], rel=1e-3)


def test_a_pipelined_run_gives_back_its_own_seconds(
    tmp_path: Path, job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import distseq

    pipeline = {"scheduler": "pipeline", "parts": 3, "copies": 1}
    result = distseq.train(job, out=tmp_path / "run", delays="heavy-tail", **pipeline)
    assert command(f"profile --run {result.folder} --out {tmp_path / 'm.npz'}") == 0
    capsys.readouterr()
    jobs = result.summary["jobs"]
    options = f"--models 2 --jobs {jobs} --unfinished serial --scheduler pipeline --parts 3 --copies 1 --json"
    assert command(f"simulate --trace {tmp_path / 'm.npz'} {options}") == 0
    replayed = json.loads(capsys.readouterr().out)
    assert replayed["total_seconds"] == pytest.approx(result.summary["total_seconds"], rel=1e-3)


def test_a_csv_holds_start_ups_and_says_which_slope_goes_with_it(
    tmp_path: Path, job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import distseq

    result = distseq.train(job, out=tmp_path / "run", scheme="uncoded", delays="heavy-tail")
    for suffix in ("npz", "csv"):
        assert command(f"profile --run {result.folder} --out {tmp_path}/m.{suffix}") == 0
    measured, read = (load_trace(tmp_path / f"m.{suffix}") for suffix in ("npz", "csv"))
    np.testing.assert_array_equal(read.startups(), measured.startups())
    assert read.slope == 0.0
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"with --slope {measured.slope:.4g}")


@pytest.fixture
def job(tmp_path: Path) -> Path:
    text = tmp_path / "text.txt"
    text.write_text("a line of text that is long enough to train on\n" * 40)
    path = tmp_path / "job.toml"
    # A check takes workers' time, which a trace leaves out as it does an evaluation's.
    path.write_text(
        f"""
[run]
steps = 5
checks = 0
[pool]
kind = "simulated"
workers = 4
[defaults]
model = "distseq.models.char_lstm:CharLSTM"
model_args = {{ hidden = 4 }}
data = "text:{text}"
data_args = {{ window = 4 }}
batch = 8
[[learner]]
name = "a"
[[learner]]
name = "b"
"""
    )
    return path


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("profile --out x.npz --run nowhere", "nowhere is not a run folder: it has no journal.jsonl"),
        ("profile --out nowhere/x.npz --pool local", "cannot write trace nowhere/x.npz: there is no folder nowhere"),
        ("profile --out x.npz --pool simulated", "the pool must be ray or local, got 'simulated'"),
        ("profile --out x.npz --pool local --workers 0", "workers >= 1"),
        ("profile --out x.npz --pool local --rounds -1", "rounds >= 1"),
        ("profile --out x.npz --pool local --seconds nan", "seconds >= 0"),
    ],
)
def test_a_mistake_is_one_line(
    line: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(line) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"kind": "job"},
        {"kind": "round", "arrivals": [[1]]},
        {"kind": "round", "arrivals": 5},
        [],
        5,
        None,
        {"kind": "run"},
    ],
)
def test_a_journal_with_a_record_of_another_form_is_refused_in_one_line(tmp_path: Path, record: object) -> None:
    head = {"kind": "run", "members": {"0": "a"}}
    (tmp_path / "journal.jsonl").write_text("".join(json.dumps(each) + "\n" for each in (record, head)))
    with pytest.raises(ValueError, match=r".") as error:
        run_trace(tmp_path)
    assert len(str(error.value).splitlines()) == 1
