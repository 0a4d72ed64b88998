"""A strategy says what the tables of a config file mean for scheduling."""

from typing import Any

import pytest

from distseq.config.strategy import Strategy, strategy
from distseq.config.toml_file import from_dict
from distseq.scheduling.adaptive.cost import Prices
from distseq.scheduling.adaptive.scheduler import AdaptiveScheduler
from distseq.scheduling.backup import BackupScheduler
from distseq.scheduling.closing import Mu, Safe
from distseq.scheduling.pipeline import Pipeline
from distseq.scheduling.pipeline_scheduler import PipelineScheduler
from distseq.scheduling.round_scheduler import RoundScheduler
from tests.distseq.config.configs import LEARNER


def made(workers: int = 6, pool: str = "simulated", learners: int = 2, **scheduler: Any) -> Strategy:
    many = [LEARNER | {"name": f"m{m}", "batch": 4 + m} for m in range(learners)]
    return strategy(
        from_dict({"learner": many, "pool": {"kind": pool, "workers": workers}, "scheduler": dict(scheduler)})
    )


@pytest.mark.parametrize(
    ("own", "name", "exact", "pipeline", "ahead", "scheduler"),
    [
        ({"scheme": "gc:1"}, "gc:1", True, None, 1, RoundScheduler),
        ({"scheme": " gc:1"}, " gc:1", True, None, 1, RoundScheduler),
        ({"scheme": "backup:50"}, "backup:50", True, None, 1, BackupScheduler),
        ({"scheme": "ksync:4", "inexact": True}, "ksync:4", False, None, 1, RoundScheduler),
        ({"scheme": "async:3", "inexact": True}, "async:3,parts=4", False, Pipeline(4), 3, PipelineScheduler),
        ({"kind": "pipeline", "parts": 3}, "pipeline:3,2", True, Pipeline(3, 2), 1, PipelineScheduler),
        ({}, "auto", True, Pipeline(3, 2), 1, AdaptiveScheduler),
        ({"places": 9}, "auto", True, Pipeline(3, 2, places=6), 1, AdaptiveScheduler),
    ],
)
def test_a_strategy_is_what_the_tables_describe(
    own: dict[str, Any], name: str, exact: bool, pipeline: Pipeline | None, ahead: int, scheduler: type
) -> None:
    found = made(**own)
    assert (found.name, found.exact, found.pipeline, found.ahead) == (name, exact, pipeline, ahead)
    assert found.heading == (name if exact else f"{name} (not exact)")
    assert found.adaptive == (name == "auto")
    assert (found.scheme.n, found.batch, found.question.models) == (6, 4, 2)
    assert type(found.scheduler(7)) is scheduler


def test_a_scheduler_is_new_each_time() -> None:
    own = made(scheme="gc:1")
    assert own.scheduler() is not own.scheduler()


def test_a_closing_rule_and_a_question_are_made_from_their_keys() -> None:
    assert made(scheme="gc:1", cutoff=0.5).closing == Safe(0.5)
    assert made(scheme="gc:1", closing="mu", mu=2.0).closing == Mu(2.0)
    question = made(objective="price", prices="message=2").question
    assert (question.objective, question.prices) == ("price", Prices(message=2.0))


def test_a_real_worker_finishes_what_it_has_begun() -> None:
    own = {"learner": [LEARNER], "pool": {"kind": "simulated", "unfinished": "lost"}}
    assert strategy(from_dict(own)).unfinished == "lost"
    own["pool"] = {"kind": "local", "unfinished": "lost"}
    assert strategy(from_dict(own)).unfinished == "serial"


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"scheme": "raptor"}, "unknown scheme 'raptor'"),
        ({"scheme": "gc:6"}, "needs 0 <= s < n: got n=6, s=6"),
        ({"scheme": "ksync:4"}, "ksync:4 changes the gradients, so training is not exact"),
        ({"scheme": "async:2"}, "async:2,parts=4 changes the gradients, so training is not exact"),
        ({"kind": "pipeline", "lanes": 7}, "got lanes=7, workers=6"),
        ({"scheme": "gc:1", "cutoff": float("inf")}, "closing=safe needs a finite cutoff >= 0 seconds: got inf"),
        ({"cutoff": -1.0}, "closing=safe needs a finite cutoff >= 0 seconds: got -1.0"),
        ({"objective": "price"}, "needs prices: give prices"),
        ({"prices": "message=cheap"}, "a price must be KEY=DOLLARS"),
    ],
)
def test_what_cannot_be_scheduled_is_refused(own: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made(**own)


def test_a_delay_must_suit_the_number_of_models() -> None:
    made(scheme="srsgc:1,2,2").check("float32")
    with pytest.raises(ValueError, match=r"has delay T=2 and needs at least T \+ 1 learners: got 2"):
        made(scheme="srsgc:2,3,2").check("float32")
