"""Events as a data set: its parts, its fingerprint, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from distseq.models.data.dataset import open_dataset
from distseq.models.data.events import EventData
from distseq.models.data.events.dataset import Events, open_events_data
from distseq.models.data.events.folder import save_events
from distseq.models.data.events.split import Split
from distseq.models.data.held_out import held_out
from tests.models.temporal.streams import stream_of


def events(part: str = "training") -> Events:
    return Events(EventData(stream_of(events=60), Split(40, 50, 60)), part)


def test_a_sample_is_an_event_of_its_part() -> None:
    one = events("test")
    assert (len(one), one.range) == (10, slice(50, 60))
    batch = one.batch(np.array([0, 9, 3]))
    assert batch["src"].tolist() == one.stream.src[[50, 59, 53]].tolist()
    assert batch["message"].shape == (3, 3)
    assert set(batch) == {"src", "dst", "t", "message", "label"}


def test_parts_and_options_are_in_the_fingerprint() -> None:
    parts = [events(), events("validation"), events("test"), events("test").other("test", negatives=7)]
    assert len({one.fingerprint for one in parts}) == 4
    assert events().fingerprint == events().fingerprint


def test_the_test_part_is_held_out_by_default() -> None:
    found = held_out(events())
    assert isinstance(found, Events)
    assert found.fingerprint == events("test").fingerprint


def test_a_stream_without_a_split_is_cut_in_order_of_time() -> None:
    one = Events(stream_of("bipartite", events=100), val=0.5, test=0.75)
    assert one.split == Split(50, 75, 100)


def test_data_of_one_name_are_opened_once(tmp_path: Path) -> None:
    save_events(EventData(stream_of(events=60), Split(40, 50, 60)), tmp_path / "folder")
    spec = f"events:folder:{tmp_path / 'folder'}"
    one, other = open_dataset(spec), open_dataset(spec, part="test")
    assert isinstance(one, Events)
    assert isinstance(other, Events)
    assert one.stream is other.stream


def test_arguments_of_the_reader_reach_it() -> None:
    assert len(open_events_data("sequence", reader={"events": 500, "users": 20, "seed": 3}).stream) in range(1, 501)
    with pytest.raises(ValueError, match="nonsense"):
        open_events_data("sequence", reader={"nonsense": 3})


@pytest.mark.parametrize(
    ("spec", "args", "wrong"),
    [
        ("events:nothing", {}, "unknown event data 'nothing'"),
        ("events:flights", {"part": "tests"}, "part must be one of training, validation, test: got 'tests'"),
        ("events:flights", {"val": 2.0}, "needs 0 < val < test < 1: got val=2.0"),
        ("events:snap:/no/such/file", {}, "no/such/file"),
    ],
)
def test_what_cannot_be_opened_is_one_line(spec: str, args: dict[str, object], wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong) as caught:
        open_dataset(spec, **args)
    assert "\n" not in str(caught.value)
