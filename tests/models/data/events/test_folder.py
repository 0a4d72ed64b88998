"""Event data survives a folder; what is mapped from it is not copied, and a damaged folder is refused in one line."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distseq.models.data.events import EventData, EventStream, open_events
from distseq.models.data.events.folder import load_events, save_events
from distseq.models.data.events.split import Split

FULL = EventData(
    EventStream(
        src=np.array([0, 1, 0, 2]),
        dst=np.array([3, 4, 3, 3]),
        t=np.array([5, 5, 7, 9]),
        message=np.arange(8, dtype=np.float32).reshape(4, 2),
        label=np.array([0.5, 0.0, 1.0, 1.0], np.float32),
        nodes=9,
        destinations=(3, 8),
    ),
    Split(2, 3, 4),
    negatives=np.array([[4, 5, 8]]),
)
BARE = EventData(EventStream(src=np.array([1]), dst=np.array([1]), t=np.array([-3])))
EMPTY = EventData(EventStream(*np.empty((3, 0), np.int64), nodes=2, message=np.empty((0, 3), np.float32)))


@pytest.mark.parametrize("data", [FULL, BARE, EMPTY], ids=["full", "bare", "empty"])
def test_what_is_saved_is_what_is_loaded(data: EventData, tmp_path: Path) -> None:
    save_events(data, tmp_path / "new" / "events")
    again = open_events(f"folder:{tmp_path}/new/events")
    assert again.stream.fingerprint == data.stream.fingerprint
    assert again.split == data.split
    if data.negatives is None:
        assert again.negatives is None
    else:
        np.testing.assert_array_equal(again.negatives, data.negatives)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["events"]


@pytest.mark.filterwarnings("error")
def test_arrays_are_mapped_and_become_tensors_without_a_copy(tmp_path: Path) -> None:
    save_events(FULL, tmp_path / "events")
    stream = load_events(str(tmp_path / "events")).stream
    for array in stream[1:].arrays().values():
        base: Any = array
        while not isinstance(base, np.memmap):
            base = base.base
        assert torch.from_numpy(array).data_ptr() == array.ctypes.data
    # What a process writes by mistake stays its own.
    stream.t[0] = -1
    assert load_events(str(tmp_path / "events")).stream.t[0] == 5


def test_an_existing_target_is_left_alone(tmp_path: Path) -> None:
    save_events(FULL, tmp_path / "events")
    with pytest.raises(ValueError, match=r"can't write events to .*: it exists$"):
        save_events(BARE, tmp_path / "events")
    assert len(load_events(str(tmp_path / "events")).stream) == 4


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(path: Path, *args: Any, **more: Any) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full_disk)
    with pytest.raises(ValueError, match=r"can't write events to .*: No space left on device$"):
        save_events(FULL, tmp_path / "events")
    assert list(tmp_path.iterdir()) == []


def damaged(folder: Path, name: str) -> None:
    header = json.loads((folder / "header.json").read_text())
    match name:
        case "no folder":
            shutil.rmtree(folder)
        case "no header":
            (folder / "header.json").unlink()
        case "text":
            (folder / "header.json").write_text("{" * 100_000)
        case "another format":
            (folder / "header.json").write_text(json.dumps(header | {"format": "distseq events 9"}))
        case "another name":
            (folder / "header.json").write_text(
                json.dumps(header | {"arrays": header["arrays"] | {"../x": ["<f4", [1]]}})
            )
        case "no nodes":
            (folder / "header.json").write_text(json.dumps(header | {"nodes": None}))
        case "no split":
            header.pop("split")
            (folder / "header.json").write_text(json.dumps(header))
        case "nodes":
            (folder / "header.json").write_text(json.dumps(header | {"nodes": 4}))
        case "split":
            (folder / "header.json").write_text(json.dumps(header | {"split": [3, 3]}))
        case "missing":
            (folder / "dst.npy").unlink()
        case "truncated":
            (folder / "t.npy").write_bytes((folder / "t.npy").read_bytes()[:-8])
        case "pickled":
            np.save(folder / "t.npy", np.array([{}, 1, 2, 3], object), allow_pickle=True)
        case "shorter":
            np.save(folder / "t.npy", np.array([5, 5, 7]))
        case "other type":
            np.save(folder / "t.npy", np.array([5, 5, 7, 9], np.int32))
        case "unsorted":
            np.save(folder / "t.npy", np.array([5, 5, 9, 7]))
        case "no array":
            (folder / "label.npy").write_bytes(b"x" * 200)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no folder", ": header.json: No such file or directory"),
        ("no header", ": header.json: No such file or directory"),
        ("text", ": header.json is none of format 'distseq events 1'"),
        ("another format", ": header.json is none of format 'distseq events 1'"),
        ("another name", ": header.json is damaged"),
        ("no nodes", ": header.json is damaged"),
        ("no split", ": header.json is damaged"),
        ("nodes", " event 1: dst=4 is not below nodes=4"),
        ("split", ": the split leaves no validation events: validation begins at event 3, test at 3 of 4"),
        ("missing", ": dst.npy: No such file or directory"),
        ("truncated", ": array 't.npy' of shape (4,) takes 32 bytes, and the file has 24"),
        ("pickled", ": Object arrays cannot be loaded: array 't.npy' holds Python objects, not numbers"),
        ("shorter", ": t.npy holds <i8 [3], not <i8 [4]"),
        ("other type", ": t.npy holds <i4 [4], not <i8 [4]"),
        ("unsorted", " event 3: t=7 is earlier than t=9 before it: events must be sorted by time"),
        ("no array", ": member 'label.npy' is not an array"),
    ],
)
def test_a_damaged_folder_is_refused_in_one_line(name: str, message: str, tmp_path: Path) -> None:
    save_events(FULL, tmp_path / "events")
    damaged(tmp_path / "events", name)
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the end is compared
        load_events(str(tmp_path / "events"))
    assert str(error.value).endswith(f"data 'folder:{tmp_path}/events'{message}")
