"""What a pool concludes from what it hears and does not hear, on scripted hosts and a scripted clock."""

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from distseq.cluster.hosts import host_pool
from distseq.cluster.hosts.host_pool import POLL, SILENT, HostPool
from distseq.cluster.hosts.messages import Answer, Assign, Command, Progress, Report
from distseq.cluster.hosts.row_limits import GENEROUS, LEAST, UNKNOWN, RowKind, RowLimits
from distseq.cluster.hosts.transport import Term
from distseq.cluster.pool import Delivery, Payload
from distseq.coding.plan import MiniTask

IDS = np.arange(8)
IDLE, BUSY = Progress((), 0.0, idle=True), Progress((MiniTask(0, 0, 0),), 1.0)


class Host:
    """A handle, and what it was sent."""

    def __init__(self) -> None:
        self.commands: list[Command] = []

    def invocation(self, task: MiniTask) -> int:
        sent = [each for each in self.commands if isinstance(each, Assign) and task in each.tasks]
        return sent[-1].invocation


class Script:
    """A transport and a clock. Each `wait` takes as long, and returns for each host, what `hears` says."""

    def __init__(self) -> None:
        self.clock = 0.0
        self.hosts: list[Host] = []
        self.hears: Callable[[Host, float], tuple[float, list[Report] | None]] = lambda host, seconds: (seconds, [IDLE])

    def monotonic(self) -> float:
        return self.clock

    def spawn(self, name: str) -> Host:
        self.hosts.append(Host())
        return self.hosts[-1]

    def wait(self, handles: Sequence[Host], seconds: float) -> list[tuple[Host, list[Report]]]:
        heard = [(host, *self.hears(host, seconds)) for host in handles]
        self.clock += max(took for _, took, _ in heard)
        return [(host, reports) for host, _, reports in heard if reports is not None]

    def post(self, handle: Host, commands: list[Command], shared: Mapping[int, Any]) -> None:
        handle.commands += commands

    def share(self, payload: Payload) -> Payload:
        return payload

    def add(self, terms: Sequence[Term], meanwhile: Callable[[], bool]) -> np.ndarray:
        return np.zeros(1)

    def room(self) -> None: ...
    def wait_ready(self, handles: Sequence[Host], seconds: float) -> None: ...
    def unshare(self, payload: Payload, shared: Payload) -> None: ...
    def stays(self, row: object) -> bool:
        return False

    def free(self, handle: Host, rows: Sequence[object]) -> None: ...
    def pid(self, handle: Host) -> int:
        return 1

    def kill(self, handle: Host) -> None: ...
    def close(self) -> None: ...


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    made = Script()
    monkeypatch.setattr(host_pool, "time", SimpleNamespace(monotonic=made.monotonic))
    return made


def owing(script: Script, kind: str = "gradient") -> HostPool:
    """A pool of one host that owes one row of job 0."""
    pool = HostPool(1, script, 1)
    publish(pool, 0, kind)
    return pool


def publish(pool: HostPool, job: int, kind: str = "gradient") -> MiniTask:
    pool.publish(job, Payload(job, 0, 0, np.zeros(0), IDS, 0, "uncoded", 1, kind=kind))
    pool.send([MiniTask(job, 0, 0)])
    return MiniTask(job, 0, 0)


def news(pool: HostPool, seconds: float) -> list[str]:
    """What is told within so many seconds."""
    told: list[str] = []
    end = pool.now() + seconds
    while not told and pool.now() < end:
        pool.poll(end)
        told += pool.news()
    return told


def answer(host: Host, task: MiniTask, seconds: float) -> Answer:
    row = np.zeros(1, dtype=np.float32)
    return Answer(task, task.job + 1, 1, host.invocation(task), 0.0, seconds, row, 0)


def receive(script: Script, pool: HostPool, *reports: Report) -> list[Delivery]:
    script.hears = lambda host, seconds: (0.001, list(reports))
    return pool.poll(None)


def test_a_host_that_is_silent_while_the_pool_listens_is_replaced(script: Script) -> None:
    pool = owing(script)
    script.hears = lambda host, seconds: (seconds, None)
    assert news(pool, SILENT - 1) == []
    (line,) = news(pool, 3)
    assert line.startswith("host-0 is replaced: it was silent for 3")


def test_a_pause_of_the_driver_is_not_silence_of_its_hosts(script: Script) -> None:
    """Stopped for a minute in the middle of a wait, or away for a minute between two; the hosts were stopped with it."""
    pool = owing(script)
    script.hears = lambda host, seconds: (60.0, None)
    for _ in range(10):
        pool.poll(None)
    assert pool.news() == []
    script.hears = lambda host, seconds: (seconds, None)
    for _ in range(2):
        script.clock += 60.0
        pool.poll(None)
    assert pool.news() == []
    # From then on silence counts.
    assert len(news(pool, SILENT)) == 1


def test_a_wait_without_an_end_is_given_back_each_second(script: Script) -> None:
    pool = owing(script)
    script.hears = lambda host, seconds: (min(0.3, seconds), [BUSY])
    begun = pool.now()
    assert pool.poll(None) == pool.poll(1e9) == []
    assert 2 * POLL <= pool.now() - begun <= 2 * POLL + 0.6


def test_a_host_that_says_it_is_idle_but_owes_a_row_is_replaced(script: Script) -> None:
    pool = owing(script)
    assert news(pool, SILENT - 1) == []
    assert news(pool, 5) == ["host-0 is replaced: it says that it is idle, but owes 1 rows"]
    # Sent again, to its successor.
    receive(script, pool, IDLE)
    assert script.hosts[-1].invocation(MiniTask(0, 0, 0)) > 0


def test_a_host_that_computes_or_starts_up_is_not_idle(script: Script) -> None:
    pool = owing(script)
    script.hears = lambda host, seconds: (seconds, [BUSY])
    assert news(pool, 5 * SILENT) == []
    script.hears = lambda host, seconds: (seconds, [Progress((), 0.0)])
    assert news(pool, 5 * SILENT) == []


@pytest.mark.parametrize("kind", ["gradient", "evaluation"])
def test_limits_of_rows_follow_from_measured_times(script: Script, kind: str) -> None:
    pool = owing(script, kind)
    first = MiniTask(0, 0, 0)
    # Nothing is known yet.
    receive(script, pool, Progress((first,), UNKNOWN - 1))
    assert pool.news() == []
    receive(script, pool, answer(script.hosts[0], first, seconds=6.0))
    # The first row on this host took 6 s; of later ones nothing is known but this.
    second = publish(pool, 1, kind)
    receive(script, pool, Progress((second,), UNKNOWN - 1))
    assert pool.news() == []
    receive(script, pool, answer(script.hosts[0], second, seconds=0.01))
    third = publish(pool, 2, kind)
    receive(script, pool, Progress((third,), LEAST - 1))
    assert pool.news() == []
    receive(script, pool, Progress((third,), LEAST + 1))
    told = "host-0 is replaced: group 0 of job 2 for worker 0 took 31 s, longer than its limit of 30 s (row_timeout)"
    assert pool.news() == [told]
    # Its successor has twice as long, and as it opens the data anew, as long as first rows take.
    receive(script, pool, IDLE)
    receive(script, pool, Progress((third,), 2 * GENEROUS * 6.0 - 1))
    assert pool.news() == []
    receive(script, pool, Progress((third,), 2 * GENEROUS * 6.0 + 1))
    assert ["took 241 s, longer than its limit of 240 s" in line for line in pool.news()] == [True]


def test_limits_are_per_sample_and_never_of_another_learner() -> None:
    limits = RowLimits()
    limits.measured(RowKind(0, "gradient", False), samples=100, seconds=50.0)
    assert limits.seconds(RowKind(0, "gradient", False), samples=200, deaths=0) == GENEROUS * 100
    assert limits.seconds(RowKind(0, "gradient", False), samples=0.0, deaths=2) == 4 * LEAST
    assert limits.seconds(RowKind(0, "evaluation", True), samples=10_000, deaths=0) == GENEROUS * 5000
    assert limits.seconds(RowKind(1, "gradient", False), samples=200, deaths=0) == UNKNOWN


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_a_limit_that_no_row_can_keep_is_refused(script: Script, seconds: float) -> None:
    with pytest.raises(ValueError, match=f"row_timeout must be positive: got {seconds}"):
        HostPool(1, script, 1, row_timeout=seconds)


def test_a_given_limit_holds_for_every_row_and_attempt() -> None:
    limits = RowLimits(7.0)
    limits.measured(RowKind(0, "gradient", False), samples=1, seconds=50.0)
    assert limits.seconds(RowKind(0, "gradient", False), samples=200, deaths=2) == limits.unknown == 7.0
