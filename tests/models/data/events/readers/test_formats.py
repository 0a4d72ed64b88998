"""The same events in every format are the same stream, and each format refuses the same mistakes by file and row."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distseq.models.data.events import EventData, open_events


@dataclass
class Events:
    """What is written: the columns of a file before they mean anything."""

    src: list[Any]
    dst: list[Any]  # of items, numbered from 0, where users and items are apart
    t: list[Any]
    label: list[Any]
    message: list[list[Any]]
    split: list[Any]

    def rows(self) -> list[tuple[Any, ...]]:
        return list(zip(self.src, self.dst, self.t, self.label, self.message, self.split, strict=True))


GOOD = Events(
    src=[0, 1, 0, 2, 1, 0],
    dst=[0, 1, 1, 0, 1, 3],
    t=[0, 3, 3, 8, 9, 1_600_000_000],
    label=[0, 0, 1, 0, 0, 1],
    message=[[0.5, -1], [0.25, 2], [1e-3, 3], [0, 0], [-2.5, 7], [1, 1]],
    split=[0, 0, 0, 1, 1, 2],
)
USERS = 3


def lines(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(rows) + "\n")
    return path


def jodie(events: Events, folder: Path) -> str:
    body = [",".join(map(str, [u, v, t, label, *f])) for u, v, t, label, f, _ in events.rows()]
    return f"jodie:{lines(folder / 'e.csv', 'user,item,timestamp,state_label,comma_separated_list_of_features', *body)}"


def ml(events: Events, folder: Path) -> str:
    body = [
        f"{k},{u + 1},{v + 1 + USERS},{t},{label},{k + 1}" for k, (u, v, t, label, _, _) in enumerate(events.rows())
    ]
    np.save(folder / "ml_e.npy", np.array([[0, 0], *events.message], float))
    return f"ml:{lines(folder / 'ml_e.csv', ',u,i,ts,label,idx', *body)}"


def snap(events: Events, folder: Path) -> str:
    body = [f"{u}\t{v}  {t} {label}" for u, v, t, label, _, _ in events.rows()]
    return f"snap:{lines(folder / 'e.txt', '# from SNAP', *body[:2], '', '% of others', *body[2:])}"


def tgb(events: Events, folder: Path) -> str:
    np.savez(
        folder / "e.npz",
        sources=events.src,
        destinations=np.array(events.dst) + USERS,
        timestamps=events.t,
        edge_idxs=np.arange(len(events.t)) + 1,
        edge_feat=events.message,
        w=np.ones(len(events.t)),
        edge_label=events.label,
    )
    return f"tgb:{folder / 'e.npz'}"


def tgb_seq(events: Events, folder: Path) -> str:
    body = [f"{u},{v + USERS},{t},{split}" for u, v, t, _, _, split in events.rows()]
    np.save(folder / "e_edge_feat.npy", np.array(events.message, np.float32))
    np.save(folder / "e_test_ns.npy", np.full((sum(split == 2 for split in events.split), 2), USERS + 1))
    return f"tgb-seq:{lines(folder / 'e.csv', 'src,dst,time,split', *body)}"


def tgl(events: Events, folder: Path) -> str:
    body = [f"{k},{u},{v + USERS},{float(t)},0,{split}" for k, (u, v, t, _, _, split) in enumerate(events.rows())]
    torch.save(torch.tensor(events.message), folder / "edge_features.pt")
    lines(folder / "edges.csv", ",src,dst,time,int_roll,ext_roll", *body)
    return f"tgl:{folder}"


def npz(events: Events, folder: Path) -> str:
    arrays = {name: np.array(getattr(events, name)) for name in ("src", "t", "label", "message", "split")}
    np.savez(folder / "n.npz", **arrays, dst=np.array(events.dst) + USERS)
    return f"npz:{folder / 'n.npz'}"


Write = Callable[[Events, Path], str]
FORMATS: list[Write] = [jodie, ml, snap, tgb, tgb_seq, tgl, npz]
ARGS: dict[Write, dict[str, Any]] = {snap: {"columns": "u v t label", "apart": True}}
WITH_LABEL = (jodie, ml, snap, tgb, npz)
WITH_MESSAGE = (jodie, ml, tgb, tgb_seq, tgl, npz)
WITH_SPLIT = (tgb_seq, tgl, npz)
every_format = pytest.mark.parametrize("write", FORMATS, ids=lambda write: write.__name__)


def read(write: Write, events: Events, folder: Path, **args: Any) -> EventData:
    return open_events(write(events, folder), **ARGS.get(write, {}), **args)


@every_format
def test_the_same_events_are_the_same_stream(write: Write, tmp_path: Path) -> None:
    data = read(write, GOOD, tmp_path)
    stream = data.stream
    assert stream.src.tolist() == GOOD.src
    assert (stream.dst - USERS).tolist() == GOOD.dst
    assert stream.t.tolist() == GOOD.t
    assert (stream.nodes, stream.destinations) == (7, (3, 7))
    if write in WITH_LABEL:
        assert stream.label is not None
        assert stream.label.tolist() == GOOD.label
    else:
        assert stream.label is None
    if write in WITH_MESSAGE:
        np.testing.assert_array_equal(stream.message, np.array(GOOD.message, np.float32))
    else:
        assert stream.message is None
    assert (data.split is None) == (write not in WITH_SPLIT)
    assert data.split is None or (data.split.first_val, data.split.first_test) == (3, 5)


@every_format
def test_sort_puts_events_into_order_and_keeps_ties_as_they_are(write: Write, tmp_path: Path) -> None:
    order = [5, 1, 4, 2, 0, 3]
    mixed = Events(*([getattr(GOOD, name)[k] for k in order] for name in GOOD.__dataclass_fields__))
    one = read(write, GOOD, tmp_path)
    # Elsewhere: what is mapped changes with its file.
    (tmp_path / "mixed").mkdir()
    other = read(write, mixed, tmp_path / "mixed", sort=True)
    assert other.stream.fingerprint == one.stream.fingerprint
    assert other.split == one.split


def where(write: Write, row: int) -> str:
    """How the message begins that names a row, counted from 0."""
    line = {snap: f" line {row + 2 + 2 * (row >= 2)}", tgb: f" event {row}", npz: f" event {row}"}
    return line.get(write, f" row {row + 1} (line {row + 2})")


def refused(write: Write, folder: Path, wrong: Events, message: str, **args: Any) -> None:
    spec = write(wrong, folder)
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole message is compared
        open_events(spec, **ARGS.get(write, {}), **args)
    assert str(error.value).startswith(f"data {spec!r}{message}")
    assert "\n" not in str(error.value)


@every_format
def test_unsorted_times_are_refused_by_row(write: Write, tmp_path: Path) -> None:
    wrong = replace(GOOD, t=[0, 3, 2, 8, 1, 9])
    message = ": t=2 is earlier than t=3 before it: events must be sorted by time, or sort = true sorts them"
    refused(write, tmp_path, wrong, where(write, 2) + message)


@every_format
@pytest.mark.parametrize("time", ["nan", "inf", "0.5"])
def test_times_that_are_no_whole_numbers_are_refused_by_row(write: Write, time: str, tmp_path: Path) -> None:
    value: Any = float(time)
    refused(write, tmp_path, replace(GOOD, t=[0, 3, 3, value, 9, 10]), where(write, 3))


@every_format
def test_negative_ids_are_refused_by_row(write: Write, tmp_path: Path) -> None:
    refused(write, tmp_path, replace(GOOD, src=[0, 1, 0, -2, 1, -3]), where(write, 3))
    below = -USERS - 1 if write not in (jodie, snap) else -1
    refused(write, tmp_path, replace(GOOD, dst=[0, below, 1, 0, 1, 2]), where(write, 1))


@every_format
def test_the_row_of_a_mistake_is_that_of_the_file_also_where_it_is_sorted(write: Write, tmp_path: Path) -> None:
    wrong = replace(GOOD, t=[9, 8, 7, 6, 5, 4], src=[0, -2, 0, 1, 1, 1], split=[2, 1, 1, 0, 0, 0])
    refused(write, tmp_path, wrong, where(write, 1), sort=True)


@pytest.mark.parametrize("write", WITH_MESSAGE, ids=lambda write: write.__name__)
def test_features_that_are_not_finite_are_refused_by_row(write: Write, tmp_path: Path) -> None:
    wrong = replace(GOOD, message=[[0.5, -1.0]] * 4 + [[1.0, float("nan")]] + [[0.0, 0.0]])
    refused(write, tmp_path, wrong, where(write, 4))


@pytest.mark.parametrize("write", [ml, tgb, tgb_seq, tgl, npz], ids=lambda write: write.__name__)
def test_features_of_the_wrong_length_are_refused_by_file(write: Write, tmp_path: Path) -> None:
    spec = write(GOOD, tmp_path)
    match write.__name__:
        case "ml":
            np.save(tmp_path / "ml_e.npy", np.zeros((6, 2)))
            message = ": ml_e.npy must have 7 rows: got shape (6, 2)"
        case "tgb_seq":
            np.save(tmp_path / "e_edge_feat.npy", np.zeros((7, 2)))
            message = ": e_edge_feat.npy must have 6 rows: got shape (7, 2)"
        case "tgl":
            torch.save(torch.zeros(5, 2), tmp_path / "edge_features.pt")
            message = ": message has 5 rows, and there are 6 events"
        case _:
            archive = tmp_path / spec.partition(":")[2]
            arrays = dict(np.load(archive))
            name = "edge_feat" if "edge_feat" in arrays else "message"
            np.savez(archive, **arrays | {name: np.zeros((4, 2))})
            message = ": message has 4 rows, and there are 6 events"
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole message is compared
        open_events(spec)
    assert str(error.value) == f"data {spec!r}{message}"


@every_format
def test_a_file_that_is_not_there_is_named(write: Write, tmp_path: Path) -> None:
    spec = write(GOOD, tmp_path)
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"can't read data '.*No such file or directory$"):
        open_events(spec)


@pytest.mark.parametrize("write", [jodie, ml, snap, tgb_seq, tgl], ids=lambda write: write.__name__)
def test_a_file_without_events_is_refused(write: Write, tmp_path: Path) -> None:
    spec = write(GOOD, tmp_path)
    path = tmp_path / "edges.csv" if write is tgl else Path(spec.partition(":")[2])
    path.write_text("# nothing\n" if write is snap else path.read_text().splitlines()[0] + "\n")
    with pytest.raises(ValueError, match=r"has no events$"):
        open_events(spec, **ARGS.get(write, {}))
