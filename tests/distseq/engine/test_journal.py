"""The journal: what is written is read back, and what was observed replays."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from distseq.cluster.pool import Delivery
from distseq.cluster.trace import Trace
from distseq.coding.plan import MiniTask
from distseq.engine.journal import ARRIVAL, FileJournal, MemoryJournal, arrival, read_journal
from distseq.scheduling.closing import Closing, Mu, Safe
from distseq.simulation.recorded import arrival_table, master_seconds
from distseq.simulation.simulate import Setting, simulate
from tests.coding.strategies import PROPERTY, generators
from tests.examples import examples

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
record_lists = st.lists(st.dictionaries(st.text(), values, max_size=4), max_size=5)


def written(folder: Path, records: list[dict[str, Any]]) -> Path:
    path = folder / "journal.jsonl"
    path.unlink(missing_ok=True)
    journal = FileJournal(path)
    for record in records:
        journal.write(record)
    journal.close()
    return path


@PROPERTY
@given(records=record_lists)
def test_records_are_read_back_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]]
) -> None:
    path = written(tmp_path_factory.getbasetemp(), records)
    assert list(read_journal(path)) == records
    assert path.read_bytes().count(b"\n") == len(records)


def test_a_record_can_be_read_as_soon_as_it_is_written(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path / "journal.jsonl")
    for t in range(3):
        journal.write({"kind": "round", "index": t})
        assert [record["index"] for record in read_journal(tmp_path / "journal.jsonl")] == list(range(t + 1))
    journal.close()


def test_a_journal_is_never_written_over(tmp_path: Path) -> None:
    path = written(tmp_path, [{"kind": "run"}])
    with pytest.raises(FileExistsError):
        FileJournal(path)
    assert list(read_journal(path)) == [{"kind": "run"}]


def test_a_last_line_cut_anywhere_is_passed_over(tmp_path: Path) -> None:
    records = [{"kind": "run", "name": "é"}, {"kind": "round", "arrivals": [[0, 1, 2.5]]}]
    path = written(tmp_path, records)
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for end in range(first, len(whole)):
        path.write_bytes(whole[:end])
        assert list(read_journal(path)) == (records if end == len(whole) - 1 else records[:1])


@pytest.mark.parametrize("bad", ["", "{", '{"kind": "rou', "nonsense"])
def test_a_bad_line_that_is_not_the_end_of_a_crash_is_an_error(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "journal.jsonl"
    for text, line in ((f'{{"a":1}}\n{bad}\n{{"b":2}}\n', 2), (f'{{"a":1}}\n{{"b":2}}\n{bad}\n', 3)):
        path.write_text(text)
        with pytest.raises(ValueError, match=rf"journal\.jsonl line {line} is not a journal record"):
            list(read_journal(path))


def test_an_arrival_is_a_list_in_a_named_order() -> None:
    delivery = Delivery(MiniTask(7, 2, 5), 1.23456789, 0.5, 0.25, "host", 3, 11, True, 99)
    named = dict(zip(ARRIVAL, arrival(delivery, 0.125), strict=True))
    assert named == {
        "worker": 5,
        "job": 7,
        "group": 2,
        "at": 1.234568,
        "startup": 0.5,
        "compute": 0.25,
        "load": 0.125,
        "attempt": 3,
        "invocation": 11,
        "stale": 1,
    }


def round_of(*deliveries: Delivery, load: float = 0.5) -> dict[str, Any]:
    return {"kind": "round", "begun": 0.0, "ended": 0.0, "arrivals": [arrival(one, load) for one in deliveries]}


def seen(worker: int, invocation: int, startup: float, compute: float = 1.0, stale: bool = False) -> Delivery:
    return Delivery(MiniTask(0, 0, worker), 0.0, startup, compute, "host", 1, invocation, stale)


def test_the_table_has_each_worker_s_start_ups_in_the_order_of_its_invocations() -> None:
    records = [
        {"kind": "run"},
        round_of(seen(0, 0, 0.1), seen(1, 1, 0.7)),  # invocations of one worker may end out of order
        {"kind": "job", "job": 0, "decoded": 0.0},
        round_of(seen(1, 0, 0.6), seen(0, 1, 0.2), seen(0, 1, 0.2), seen(0, 2, 0.3, stale=True)),
    ]
    trace = arrival_table(records, 2)
    # worker 0: 0.1, 0.2, 0.3; worker 1: 0.6, 0.7 and round again; 1 s of compute for half a batch
    np.testing.assert_array_equal(trace.times, [[0.1, 0.6], [0.2, 0.7], [0.3, 0.6]])
    assert (trace.load, trace.slope) == (0.0, 2.0)


def test_the_slope_is_the_median_over_rows_that_computed_something() -> None:
    rows = [seen(0, k, 0.1, compute) for k, compute in enumerate((1.0, 1.0, 9.0))]
    idle = [seen(0, k, 0.1, 0.0, stale=True) for k in range(3, 9)]  # their jobs were over
    assert arrival_table([round_of(*rows), round_of(*idle, load=0.0)], 1).slope == 2.0
    assert arrival_table([round_of(*idle, load=0.0)], 1).slope == 0.0


def test_what_rows_took_beyond_the_slope_counts_as_start_up() -> None:
    # 1 s of compute for half a batch is usual; the third invocation took 2, the last 1 and 1.5 for its two rows
    rows = [seen(0, 0, 0.1), seen(0, 1, 0.2), seen(0, 2, 0.3, 2.0), seen(0, 3, 0.4), seen(0, 3, 0.4, 1.5)]
    trace = arrival_table([round_of(*rows)], 1)
    np.testing.assert_allclose(trace.times[:, 0], [0.1, 0.2, 1.3, 0.9])
    assert trace.slope == 2.0


def test_of_a_message_s_rows_the_last_knows_how_long_it_did_not_compute() -> None:
    assert arrival_table([round_of(seen(0, 0, 0.1), seen(0, 0, 0.4))], 1).times == [[0.4]]


def test_the_master_s_seconds_are_those_in_which_it_hears_nobody() -> None:
    def heard(begun: float, ended: float, *at: float) -> dict[str, Any]:
        arrivals = [arrival(Delivery(MiniTask(0, 0, 0), one, 0.1, 0.1, "host", 1, 0), 0.5) for one in at]
        return {"kind": "round", "begun": begun, "ended": ended, "arrivals": arrivals}

    safe = [  # decoded while the round goes on, and as it ends
        {"kind": "job", "decoded": 1.5},
        {"kind": "job", "decoded": 4.5},
        heard(0.0, 4.75, 1.0, 2.0, 4.0),
        heard(4.75, 9.0, 6.0),
    ]
    assert master_seconds(safe) == 0.5
    mu = [
        heard(0.0, 2.0, 1.0),
        {"kind": "job", "decoded": 3.0},
        heard(3.25, 9.0, 8.0),
    ]  # decoded when its round has ended
    assert master_seconds(mu) == 1.0
    assert master_seconds([*safe, {"kind": "resume"}, *mu]) == (0.5 + 0.5 + 1.0) / 3
    assert master_seconds(mu[:1]) == 0.0


def test_a_worker_never_heard_of_cannot_be_replayed() -> None:
    with pytest.raises(ValueError, match=r"the journal cannot be replayed: nothing arrived from workers \[1, 3\]"):
        arrival_table([round_of(seen(0, 0, 0.1), seen(2, 0, 0.1))], 4)
    with pytest.raises(ValueError, match=r"nothing arrived from workers \[0\]"):
        arrival_table([{"kind": "run"}], 1)


SCHEMES = ("uncoded", "gc:1", "gc:2,q=3", "gc:2,code=cyclic", "srsgc:1,2,2", "srsgc:2,3,3", "msgc:1,2,1", "msgc:2,3,2")


class Watched(Trace):
    """A trace that knows which invocations were looked up."""

    @cached_property
    def used(self) -> set[tuple[int, int]]:
        return set()

    def startup(self, invocation: int, worker: int) -> float:
        self.used.add((worker, invocation))
        return super().startup(invocation, worker)


def serial(trace: Trace, scheme: str, closing: Closing, jobs: int) -> tuple[float, MemoryJournal]:
    journal = MemoryJournal()
    setting = Setting(trace, 4, jobs, closing, unfinished="serial", arrival="row")
    return float(simulate(setting, scheme, journal=journal)["total_seconds"]), journal


@examples(80)
@given(
    n=st.integers(3, 7),
    scheme=st.sampled_from(SCHEMES),
    closing=st.sampled_from((Safe(), Safe(1.5), Mu(1.0))),
    draws=generators(),
)
def test_the_arrivals_of_a_serial_run_replay_in_the_same_seconds(
    n: int, scheme: str, closing: Closing, draws: np.random.Generator
) -> None:
    times = 0.5 + 0.3 * draws.random((40, n)) + (draws.random((40, n)) < 0.1) * draws.exponential(2.0, (40, n))
    trace = Watched(times, 0.0, 2.0)
    first, _ = serial(trace, scheme, closing, jobs=8)
    # A longer run has heard of the invocations that were still running at the end of this one.
    _, journal = serial(Trace(times, 0.0, 2.0), scheme, closing, jobs=16)
    rounds = [record for record in journal.records if record["kind"] == "round"]
    heard = {(values[0], values[-2]) for record in rounds for values in record["arrivals"]}
    assume(trace.used <= heard)
    again, _ = serial(arrival_table(journal.records, n), scheme, closing, jobs=8)
    assert again == pytest.approx(first, rel=1e-4)
