"""`distseq plan`: every family's best, best first, with what it rests on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distseq.cluster.profiles import profile
from distseq.cluster.trace import Trace
from distseq.scheduling.adaptive.cost import Prices, Question
from distseq.simulation.plan import plan, planned
from distseq.simulation.tables import lines
from tests.distseq.scheduling.adaptive.test_candidates import FAMILIES

NOTHING: dict[str, Any] = dict.fromkeys(
    ("job", "trace", "profile", "run", "slope", "workers", "models", "batch", "unfinished", "objective", "price")
)


def made(**options: Any) -> dict[str, Any]:
    return plan(**(NOTHING | {"parameters": 0, "seed": 0} | options))


def test_the_best_of_every_family_is_named_best_first() -> None:
    found = planned(profile("bursts", 32, 0), Question(4, "lost"))
    assert {one["family"] for one in found["candidates"]} == FAMILIES
    seconds = [one["seconds"] for one in found["candidates"]]
    assert seconds == sorted(seconds)
    assert found["chosen"] == found["candidates"][0]["candidate"]
    assert found["evidence"]["median"] == pytest.approx(0.6, rel=0.1)


def test_rare_events_are_expected_even_of_a_trace_without_any() -> None:
    calm = planned(profile("bursts", 32, 0), Question(4, "lost"))
    uncoded = next(one for one in calm["candidates"] if one["candidate"] == "uncoded")
    assert uncoded["seconds"] > 3.0, "a 27 s event in one of a hundred rounds"


def test_a_job_file_says_how_many_workers_and_models_and_how_small_a_batch_there_is(tmp_path: Path) -> None:
    job = tmp_path / "job.toml"
    job.write_text(
        '[pool]\nworkers = 16\ndelays = "bursts:base=0.1"\n'
        '[defaults]\nmodel = "m:M"\ndata = "text:x"\nbatch = 5\n[[learner]]\nname = "a"\n[[learner]]\nname = "b"\n'
    )
    found = made(job=job)
    assert (found["workers"], found["models"], found["unfinished"]) == (16, 2, "serial")
    assert all("pipeline:8" not in one["candidate"] for one in found["candidates"])
    assert made(job=job, models=3, workers=4)["models"] == 3


def test_prices_make_dollars_and_may_be_what_counts() -> None:
    paid = Question(4, numbers=10**6, objective="price", prices=Prices(worker_second=1.0, gigabyte=0.1))
    found = planned(profile("half-slow", 16, 0), paid)
    dollars = [one["dollars"] for one in found["candidates"]]
    assert dollars == sorted(dollars)
    assert found["candidates"][0]["family"] == "not splitting"
    assert all(one["bytes"] > 0 for one in found["candidates"])


def test_a_plan_is_read_line_by_line() -> None:
    found = made(profile="bursts", workers=8)
    text = lines(found)
    assert text[0] == f"8 workers, 4 models, unfinished=serial: best by seconds is {found['chosen']}"
    assert text[2].split() == ["family", "candidate", "s/job", "worker-s/job", "MB/job", "dollars/job"]
    assert len(text) == 3 + len(found["candidates"])
    assert all(line.split()[-2:] == ["-", "-"] for line in text[3:]), "neither the size of a model nor prices are known"


def test_lost_invocations_are_sent_again_and_no_start_up() -> None:
    times = profile("bursts", 8, 0).times.copy()
    times[::7, 3] = np.inf
    found = planned(Trace(times, 0.0, 2.2), Question(2, "serial"))
    assert all(np.isfinite(one["seconds"]) for one in found["candidates"])
    assert found["evidence"]["median"] == pytest.approx(0.6, rel=0.1)
    assert found["evidence"]["events"] == 0


def test_a_worker_that_never_answers_cannot_be_planned_with() -> None:
    times = np.ones((4, 2))
    times[:, 1] = np.inf
    with pytest.raises(ValueError, match="a plan needs a start-up of every worker"):
        planned(Trace(times, 0.0, 1.0), Question(2))
