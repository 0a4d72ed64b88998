"""`distseq plan`: every family's best, best first, with what it rests on."""

from pathlib import Path

import numpy as np
import pytest

from distseq.cluster.profiles import profile
from distseq.cluster.trace import Trace
from distseq.simulation.plan import plan
from distseq.simulation.tables import lines
from tests.distseq.scheduling.adaptive.test_candidates import FAMILIES


def test_the_best_of_every_family_is_named_best_first() -> None:
    found = plan(profile="bursts", workers=32, models=4, unfinished="lost")
    assert {one["family"] for one in found["candidates"]} == FAMILIES
    seconds = [one["seconds"] for one in found["candidates"]]
    assert seconds == sorted(seconds)
    assert found["chosen"] == found["candidates"][0]["candidate"]
    assert found["evidence"]["median"] == pytest.approx(0.6, rel=0.1)


def test_rare_events_are_expected_even_of_a_trace_without_any() -> None:
    calm = plan(profile="bursts", workers=32, models=4, unfinished="lost")
    uncoded = next(one for one in calm["candidates"] if one["candidate"] == "uncoded")
    assert uncoded["seconds"] > 3.0, "a 27 s event in one of a hundred rounds"


def test_a_config_file_says_how_many_workers_and_models_and_how_small_a_batch_there_is(tmp_path: Path) -> None:
    job = tmp_path / "job.toml"
    job.write_text(
        '[pool]\nworkers = 16\ndelays = "bursts:base=0.1"\n'
        '[defaults]\nmodel = "m:M"\ndata = "text:x"\nbatch = 5\n[[learner]]\nname = "a"\n[[learner]]\nname = "b"\n'
    )
    found = plan(job)
    assert (found["workers"], found["models"], found["unfinished"]) == (16, 2, "serial")
    assert all("pipeline:8" not in one["candidate"] for one in found["candidates"])
    assert plan(job, models=3, workers=4)["models"] == 3


def test_prices_make_dollars_and_may_be_what_counts() -> None:
    paid = {"objective": "price", "prices": "worker_second=1.0,gigabyte=0.1"}
    found = plan(profile="half-slow", workers=16, parameters=10**6, **paid)
    dollars = [one["dollars"] for one in found["candidates"]]
    assert dollars == sorted(dollars)
    assert found["candidates"][0]["family"] == "not splitting"
    assert all(one["bytes"] > 0 for one in found["candidates"])


def test_a_plan_is_read_line_by_line() -> None:
    found = plan(profile="bursts", workers=8)
    text = lines(found)
    assert text[0] == f"8 workers, 4 models, unfinished=serial: best by seconds is {found['chosen']}"
    assert text[2].split() == ["family", "candidate", "s/job", "worker-s/job", "MB/job", "dollars/job"]
    assert len(text) == 3 + len(found["candidates"])
    assert all(line.split()[-2:] == ["-", "-"] for line in text[3:]), "neither the size of a model nor prices are known"


def test_lost_invocations_are_sent_again_and_no_start_up() -> None:
    times = profile("bursts", 8, 0).times.copy()
    times[::7, 3] = np.inf
    found = plan(trace=Trace(times, 0.0, 2.2), models=2)
    assert all(np.isfinite(one["seconds"]) for one in found["candidates"])
    assert found["evidence"]["median"] == pytest.approx(0.6, rel=0.1)
    assert found["evidence"]["events"] == 0


def test_a_worker_that_never_answers_cannot_be_planned_with() -> None:
    times = np.ones((4, 2))
    times[:, 1] = np.inf
    with pytest.raises(ValueError, match="a plan needs at least one start-up time of each worker"):
        plan(trace=Trace(times, 0.0, 1.0), models=2)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"workers": 0}, "at least one worker: got 0"),
        ({"models": 0}, "plan needs models >= 1: got 0"),
        ({"batch": 0}, "plan needs batch >= 1: got 0"),
        ({"parameters": -1}, "plan needs parameters >= 0: got -1"),
    ],
)
def test_a_number_that_cannot_be_is_no_default(numbers: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(profile="half-slow", **numbers)  # type: ignore[arg-type]
