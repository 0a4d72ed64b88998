"""A worker that never answers: candidates that need it are impossible, the others and auto go on."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from distseq.cli.main import cli
from distseq.cluster.errors import PoolError
from distseq.cluster.profiles import profile
from distseq.cluster.trace import Trace
from distseq.scheduling.pipeline import Pipeline
from distseq.simulation.simulate import Setting, simulate

EVERY = ("lost", "serial", "overlap")


def with_dead(n: int, *dead: int, after: int = 0) -> Trace:
    """Bursts, in which these workers answer only `after` so many messages."""
    trace = profile("bursts", n, seed=0)
    times = trace.times.copy()
    times[after:, list(dead)] = np.inf
    return Trace(times, trace.load, trace.slope, trace.master)


@pytest.mark.parametrize("unfinished", EVERY)
@pytest.mark.parametrize("candidate", ["auto", "gc:1", Pipeline(2, 2)], ids=str)
@pytest.mark.parametrize("n", [8, 32])
def test_what_can_do_without_a_dead_worker_does(unfinished: str, candidate: str | Pipeline, n: int) -> None:
    for jobs in (40, 400):
        result = simulate(Setting(with_dead(n, 3), 4, jobs, unfinished=unfinished), candidate)
        assert np.isfinite(result["total_seconds"])


@pytest.mark.parametrize("unfinished", EVERY)
def test_auto_goes_on_without_two_of_sixteen(unfinished: str) -> None:
    assert simulate(Setting(with_dead(16, 3, 9), 4, 200, unfinished=unfinished), "auto")["jobs"] == 200


@pytest.mark.parametrize("unfinished", EVERY)
def test_what_needs_every_worker_does_not_get_through(unfinished: str) -> None:
    with pytest.raises(PoolError, match=r"worker 3 lost .* in each of 4 attempts"):
        simulate(Setting(with_dead(8, 3), 4, 40, unfinished=unfinished), "uncoded")


def test_a_sweep_marks_what_is_impossible_and_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "dead.npz"
    with_dead(8, 3).save(file)
    shown = CliRunner().invoke(cli, ["simulate", "--trace", str(file), "--sweep", "--jobs", "20"])
    assert shown.exit_code == 0
    assert "uncoded is impossible: worker 3 lost" in shown.output
    listed = CliRunner().invoke(cli, ["simulate", "--trace", str(file), "--sweep", "--jobs", "20", "--json"])
    results = json.loads(listed.output)
    possible = [one for one in results if "impossible" not in one]
    assert possible
    assert results[: len(possible)] == possible
    assert all("total_seconds" not in one for one in results[len(possible) :])


def test_where_nothing_gets_through_the_reason_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "dead.npz"
    with_dead(4, 0, 1, 2, 3).save(file)
    result = CliRunner().invoke(cli, ["simulate", "--trace", str(file), "--scheme", "uncoded", "--jobs", "4"])
    assert isinstance(result.exception, PoolError)
    assert str(result.exception).startswith("no candidate gets through: uncoded: worker ")


def test_a_plot_leaves_out_what_is_impossible(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file, plot = tmp_path / "dead.npz", tmp_path / "dead.svg"
    with_dead(8, 3).save(file)
    options = ["--scheme", "uncoded", "--scheme", "gc:1", "--jobs", "8", "--plot", str(plot)]
    assert CliRunner().invoke(cli, ["simulate", "--trace", str(file), *options]).exit_code == 0
    assert plot.is_file()
