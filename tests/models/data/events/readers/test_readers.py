"""What only one of the formats has: options, numbering, companions, and their mistakes."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from distseq.models.data.events import open_events
from distseq.models.data.events.readers.pyg import from_temporal_data
from distseq.models.data.events.readers.tgb import from_tgb

JODIE = "user_id,item_id,timestamp,state_label,comma_separated_list_of_features\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(message: str, spec: str, **args: Any) -> None:
    """Opening fails with one line that begins so."""
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole beginning is compared
        open_events(spec, **args)
    assert str(error.value).startswith(message), error.value
    assert "\n" not in str(error.value)


def test_jodies_files_need_not_have_features() -> None:
    Path("e.csv").write_text(JODIE + "4,0,0.0,0\n0,7,5.0,1\n")
    stream = open_events("jodie:e.csv").stream
    assert stream.message is None
    assert (stream.src.tolist(), stream.dst.tolist()) == ([4, 0], [5, 12])
    assert (stream.nodes, stream.destinations) == (13, (5, 13))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("0,0,0.0,0,1.5\n0,0,1.0,0\n", "data 'jodie:e.csv' row 2 (line 3) has 4 cells, but the header has 5"),
        ("0,0,0.0\n", "data 'jodie:e.csv' row 1 (line 2) has 3 cells, but the first row has 4"),
        ("0,x,0.0,0\n", "data 'jodie:e.csv' row 1 (line 2), column 'item': 'x' is not a finite number"),
        ("0,1.5,0.0,0\n", "data 'jodie:e.csv' row 1 (line 2), column 'item': '1.5' is not a whole number"),
        ("0,0,,0\n", "data 'jodie:e.csv' row 1 (line 2), column 'timestamp': '' is not a finite number"),
        ("0,0,1,NA\n", "data 'jodie:e.csv' row 1 (line 2), column 'state_label': 'NA' is not a finite number"),
        ("0,0,1,0,2\n0,0,2,0,1e39\n", "data 'jodie:e.csv' row 2 (line 3), column 'feature 0': '1e39' does not fit"),
        (
            "0,0,1.25,0\n",
            "data 'jodie:e.csv' row 1 (line 2): t=1.25 is a fraction, and times are whole numbers: "
            "ticks = 1000 counts in thousandths",
        ),
    ],
)
def test_bad_rows_of_jodies_files_are_refused(body: str, message: str) -> None:
    Path("e.csv").write_text(JODIE + body)
    refused(message, "jodie:e.csv")


@pytest.mark.parametrize("content", ["", "0,0,0.0,0\n1,0,1.0,0\n"])
def test_a_file_of_jodie_needs_its_header(content: str) -> None:
    Path("e.csv").write_text(content)
    refused("data 'jodie:e.csv' must begin with a header line: user,item,timestamp,state_label,...", "jodie:e.csv")


def test_ticks_keep_fractions_of_a_second() -> None:
    Path("e.csv").write_text(JODIE + "0,0,0.882,0\n0,0,1.075,0\n0,0,1.075,1\n")
    assert open_events("jodie:e.csv", ticks=1000).stream.t.tolist() == [882, 1075, 1075]
    refused("data 'jodie:e.csv': ticks must be at least 1: got 0", "jodie:e.csv", ticks=0)
    Path("e.csv").write_text(JODIE + "0,0,1e18,0\n")
    refused("data 'jodie:e.csv' row 1 (line 2): t=1e+21 does not fit int64", "jodie:e.csv", ticks=1000)


def ml(index: list[int], rows: int, nodes: tuple[int, ...] = (1, 2, 1)) -> None:
    body = [f"{k},{u},{u + 3},{k},0.5,{i}" for k, (u, i) in enumerate(zip(nodes, index, strict=True))]
    Path("ml_e.csv").write_text("\n".join([",u,i,ts,label,idx", *body]) + "\n")
    np.save("ml_e.npy", np.arange(2.0 * rows).reshape(rows, 2))


def test_idx_says_which_row_of_features_is_an_events() -> None:
    ml([1, 2, 3], 4)
    stream = open_events("ml:ml_e.csv").stream
    assert stream.message is not None
    assert stream.message.tolist() == [[2, 3], [4, 5], [6, 7]]
    assert stream.label is not None
    assert stream.label.tolist() == [0.5] * 3
    assert (stream.src.tolist(), stream.dst.tolist()) == ([0, 1, 0], [3, 4, 3])
    ml([3, 1, 3], 4)
    stream = open_events("ml:ml_e.csv").stream
    assert stream.message is not None
    assert stream.message.tolist() == [[6, 7], [2, 3], [6, 7]]
    assert open_events("ml:ml_e.csv", features=False).stream.message is None


def test_what_does_not_fit_between_csv_and_npy_is_refused() -> None:
    ml([1, 0, 3], 4)
    refused("data 'ml:ml_e.csv' row 2 (line 3): idx=0 is no row of the features: they are 1 .. 3", "ml:ml_e.csv")
    ml([1, 2, 4], 4)
    refused("data 'ml:ml_e.csv' row 3 (line 4): idx=4 is no row of the features", "ml:ml_e.csv")
    ml([1, 2, 3], 4, nodes=(1, 0, 1))
    refused("data 'ml:ml_e.csv' row 2 (line 3): src=-1 is negative", "ml:ml_e.csv")
    np.save("ml_e.npy", np.zeros(4))
    refused("data 'ml:ml_e.csv': ml_e.npy must have 4 rows: got shape (4,)", "ml:ml_e.csv")
    Path("ml_e.npy").write_bytes(Path("ml_e.npy").read_bytes()[:-1])
    refused("can't read data 'ml:ml_e.csv': ml_e.npy: array 'ml_e.npy' of shape (4,) takes 32 bytes", "ml:ml_e.csv")
    Path("ml_e.npy").unlink()
    refused("can't read data 'ml:ml_e.csv': ml_e.npy: No such file or directory", "ml:ml_e.csv")
    Path("ml_e.csv").write_text(",u,i,ts,label\n0,1,2,3,0\n")
    refused("data 'ml:ml_e.csv' has no column 'idx'; known: , u, i, ts, label", "ml:ml_e.csv")


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ({}, ([7, 3, 7], [3, 3, 900], 901)),
        ({"renumber": True}, ([1, 0, 1], [0, 0, 2], 3)),
        ({"apart": True}, ([7, 3, 7], [11, 11, 908], 909)),
        ({"apart": True, "renumber": True}, ([1, 0, 1], [2, 2, 3], 4)),
    ],
)
def test_nodes_of_text_may_be_numbered_anew(args: dict[str, Any], expected: tuple[list[int], list[int], int]) -> None:
    Path("e.txt").write_text("7 3 10\n3 3 10 # a loop\n7 900 20\n")
    stream = open_events("snap:e.txt", **args).stream
    assert (stream.src.tolist(), stream.dst.tolist(), stream.nodes) == expected


def test_columns_of_text_may_be_others() -> None:
    Path("e.csv").write_text("%u,v,w,t\n0,1,-4,10.5\n1,2,6,11\n")
    stream = open_events("snap:e.csv", columns="u v w t", delimiter=",", ticks=2).stream
    assert stream.t.tolist() == [21, 22]
    assert stream.message is not None
    assert stream.message.tolist() == [[-4], [6]]
    Path("e.txt").write_text("x 0 5 1.5 1\ny 0 5 2 2\n")
    stream = open_events("snap:e.txt", columns="- v u label t").stream
    assert stream.label is not None
    assert (stream.src.tolist(), stream.label.tolist(), stream.t.tolist()) == ([5, 5], [1.5, 2], [1, 2])
    stream = open_events("snap:e.txt", columns="- v u - t").stream
    assert stream.label is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 1 2\n0 1\n", "data 'snap:e.txt' line 2: '0 1' does not hold u v t"),
        ("0 1 2\n\n# c\n0 1 2 3\n", "data 'snap:e.txt' line 4: '0 1 2 3' does not hold u v t"),
        ("0 1 2 3\n0 1 2 3\n", "data 'snap:e.txt' line 1: '0 1 2 3' does not hold u v t"),
        ("0 a 2\n", "data 'snap:e.txt' line 1: '0 a 2' does not hold u v t"),
        ("0 1.5 2\n", "data 'snap:e.txt' line 1: '0 1.5 2' does not hold u v t"),
        ("0 1 nan\n", "data 'snap:e.txt' line 1: t=nan is not a finite number"),
        ("0 1 2\n\n0 1 1\n", "data 'snap:e.txt' line 3: t=1 is earlier than t=2 before it"),
        ("0 1 2\n-1 1 2\n", "data 'snap:e.txt' line 2: src=-1 is negative"),
        ("0 99999999999999999999 2\n", "can't read data 'snap:e.txt': "),
        ("#\n\n", "data 'snap:e.txt' has no events"),
    ],
)
def test_bad_lines_of_text_are_refused(text: str, message: str) -> None:
    Path("e.txt").write_text(text)
    refused(message, "snap:e.txt")


@pytest.mark.parametrize("columns", ["u v", "u v t t", "u v t x", ""])
def test_columns_of_text_must_name_an_event(columns: str) -> None:
    Path("e.txt").write_text("0 1 2\n")
    refused(
        "data 'snap:e.txt': columns must name u, v and t once, and may name w, label and -",
        "snap:e.txt",
        columns=columns,
    )


def test_text_that_is_none_is_refused() -> None:
    Path("e.txt").write_bytes(b"0 1 2\n\xff 1 3\n")
    refused("data 'snap:e.txt' is not UTF-8 text: invalid start byte at byte 6", "snap:e.txt")


def test_tgbs_weights_are_the_message_where_it_has_no_features() -> None:
    full = {"sources": [1, 0], "destinations": [2, 2], "timestamps": [4, 4], "edge_feat": None, "w": [2.0, 3.0]}
    message = from_tgb(full).message
    assert message is not None
    assert message.tolist() == [[2], [3]]
    del full["w"]
    assert from_tgb(full).message is None
    np.savez("e.npz", sources=[1], destinations=[2], timestamps=[4], edge_feat=np.ones(1))
    message = open_events("tgb:e.npz").stream.message
    assert message is not None
    assert message.tolist() == [[1]]


def test_archives_without_an_array_or_that_are_none_are_refused() -> None:
    np.savez("e.npz", sources=[1], destinations=[2])
    refused("data 'tgb:e.npz' has no array 'timestamps'; it has: sources, destinations", "tgb:e.npz")
    refused("data 'npz:e.npz' has no array 'src'; it has: sources, destinations", "npz:e.npz")
    Path("e.npz").write_bytes(b"PK")
    refused("can't read data 'tgb:e.npz': it is not an .npz file", "tgb:e.npz")
    np.savez("e.npz", src=[1], dst=[2], t=[3], message=5.0)
    refused("data 'npz:e.npz': message has no rows, and there are 1 events", "npz:e.npz")
    np.savez("e.npz", src=[1], dst=[2], **{"x" * 5000: [3]})
    refused(f"data 'npz:e.npz' has no array 't'; it has: src, dst, {'x' * 100}...", "npz:e.npz")
    np.savez("e.npz", src=[1], dst=[2], t=[3], nodes=[5, 6])
    refused("data 'npz:e.npz': nodes must be a whole number: got int64 (2,)", "npz:e.npz")
    np.savez("e.npz", src=[1], dst=[2], t=[3], nodes=9)
    assert open_events("npz:e.npz").stream.nodes == 9
    np.savez("e.npz", src=[1, 1, 1], dst=[2, 2, 2], t=[3, 4, 5], split=[0, 2, 1])
    refused("data 'npz:e.npz': event 2 has split=1 after split=2", "npz:e.npz")


def tgb_seq(order: list[int], negatives: Any) -> str:
    rows = ["9,1,5,0", "8,2,6,1", "9,2,7,2", "8,3,7,2", "8,1,9,2"]
    Path("S.csv").write_text("\n".join(["src,dst,time,split", *(rows[k] for k in order)]) + "\n")
    np.save("S_test_ns.npy", np.array(negatives))
    return "tgb-seq:S.csv"


def test_negatives_of_tgb_seq_belong_to_test_events_in_the_files_order() -> None:
    spec = tgb_seq([0, 1, 2, 3, 4], [[1, 1], [2, 2], [3, 4]])
    data = open_events(spec)
    assert data.negatives is not None
    assert data.negatives.tolist() == [[1, 1], [2, 2], [3, 4]]
    # A negative may be a node without events; destinations are those of the events.
    assert (data.stream.nodes, data.stream.destinations) == (10, (1, 4))
    spec = tgb_seq([4, 1, 3, 0, 2], [[3, 4], [2, 2], [1, 1]])
    mixed = open_events(spec, sort=True)
    assert mixed.stream.dst.tolist() == [1, 2, 3, 2, 1]
    assert mixed.negatives is not None
    assert mixed.negatives.tolist() == [[2, 2], [1, 1], [3, 4]]
    assert open_events(spec, sort=True, negatives=False).negatives is None


def test_mistakes_in_tgb_seqs_files_are_refused() -> None:
    spec = tgb_seq([0, 1, 2, 3, 4], [[1, 1], [2, -2], [3, 4]])
    refused("data 'tgb-seq:S.csv': negatives of test event 1 hold -2, which is no node: they are 0 .. 9", spec)
    refused(
        "data 'tgb-seq:S.csv': S_test_ns.npy must have 3 rows: got shape (2, 1)", tgb_seq([0, 1, 2, 3, 4], [[1], [1]])
    )
    refused(
        "data 'tgb-seq:S.csv': negatives must be whole numbers of shape (3 test events, K): got float64 (3, 1)",
        tgb_seq([0, 1, 2, 3, 4], [[1.0], [2.0], [2.0]]),
    )
    Path("S_test_ns.npy").unlink()
    refused("can't read data 'tgb-seq:S.csv': S_test_ns.npy: No such file or directory", spec)
    # As in Patent, whose validation and test events overlap in time.
    Path("S.csv").write_text("src,dst,time,split\n9,1,5,0\n8,2,6,1\n8,3,7,2\n8,3,7,1\n")
    refused("data 'tgb-seq:S.csv': event 3 has split=1 after split=2", spec, negatives=False)


def test_a_tensor_of_tgl_that_is_none_is_refused(folder: Path) -> None:
    (folder / "edges.csv").write_text(",src,dst,time,ext_roll\n0,0,1,0.0,0\n1,0,1,1.0,1\n2,0,1,2.0,2\n")
    assert open_events(f"tgl:{folder}").stream.message is None
    (folder / "edge_features.pt").write_bytes(b"no tensor")
    refused(f"can't read data 'tgl:{folder}': edge_features.pt: ", f"tgl:{folder}")
    torch.save({"a": 1}, folder / "edge_features.pt")
    refused(f"can't read data 'tgl:{folder}': edge_features.pt: AttributeError", f"tgl:{folder}")


def test_temporal_data_of_pyg_shares_its_memory() -> None:
    data = SimpleNamespace(
        src=torch.tensor([0, 1]),
        dst=torch.tensor([2, 2]),
        t=torch.tensor([3, 4]),
        msg=torch.ones(2, 3),
        y=torch.zeros(2),
    )
    stream = from_temporal_data(data)
    assert stream.message is not None
    assert stream.t.ctypes.data == data.t.data_ptr()
    assert stream.message.ctypes.data == data.msg.data_ptr()
    assert (stream.features, stream.nodes) == (3, 3)
    del data.msg, data.y
    assert from_temporal_data(data).label is None


def test_flights_come_with_the_package() -> None:
    stream = open_events("flights").stream
    assert (len(stream), stream.features) == (40_000, 21)
    assert stream.label is not None
    assert stream.message is not None
    # A delay of 15 minutes is late; it is the first feature, in hours.
    np.testing.assert_array_equal(stream.label, stream.message[:, 0] >= np.float32(0.25))
    np.testing.assert_array_equal(stream.message[:, 2:].sum(1), 2)
    assert stream.destinations[1] - stream.destinations[0] == 94
    assert (stream.t[0], stream.t[-1]) == (317, 68_810)


def test_events_of_ones_own_are_named_by_an_import_string(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "own_events.py").write_text(
        "import numpy as np\n"
        "from distseq.models.data.events import EventStream\n"
        "def make(count=2):\n    return EventStream(np.arange(count), np.arange(count), np.arange(count))\n"
        "def nothing():\n    return 3\n"
    )
    monkeypatch.syspath_prepend(folder)
    assert len(open_events("own_events:make", count=7).stream) == 7
    refused("event data must be an EventStream or EventData: got int", "own_events:nothing")
    refused("set of events 'os:system' is refused, and nothing was called", "os:system")


@pytest.mark.parametrize("spec", ["nothing", "jodie", "jodie:", "sequence:x", "flights:e.npz", ":e.csv"])
def test_an_unknown_spec_lists_what_there_is(spec: str) -> None:
    with pytest.raises(ValueError, match=r"sequence"):
        open_events(spec)


def test_arguments_of_other_types_are_refused() -> None:
    Path("e.txt").write_text("0 1 2\n")
    refused("data 'snap:e.txt': sort must be bool: got 'no'", "snap:e.txt", sort="no")
    refused("data 'snap:e.txt': ticks must be int: got True", "snap:e.txt", ticks=True)
    refused("data 'snap:e.txt': delimiter must be str | None: got 5", "snap:e.txt", delimiter=5)
    refused("data set 'snap:e.txt' can't be opened with {'sorted': True}", "snap:e.txt", sorted=True)
