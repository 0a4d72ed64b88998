"""Real workers that sleep what a trace says take as long as the simulator said beforehand."""

from pathlib import Path

import pytest

from tests.bench.replay import AIM, CONFIGURATIONS, Replaying, startups

# Rounds that repeat what is missing, and no rounds at all; the others are `long`.
FEW = {"msgc:1,2,8", "pipeline:8,2"}
CASES = [pytest.param(name, marks=() if name in FEW else pytest.mark.long) for name in CONFIGURATIONS]

SECONDS = 15.0  # that each is to take, of which messages on a busy machine are a small part


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("name", CASES)
def test_64_workers_replay_a_trace_in_the_seconds_that_were_predicted(name: str, shared: Path) -> None:
    replaying = Replaying(startups(str(shared / "traces" / "canada_l000.npz"), 64), "local")
    replay = replaying.run(name, replaying.jobs(name, SECONDS))
    assert abs(replay.error) <= AIM, replay
