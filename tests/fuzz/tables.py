"""Mutants of tables and texts: CSV as data and as a trace, Parquet, text files."""

import io
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from distseq.cluster.trace import load_trace
from distseq.gradients.data import open_data
from distseq.models.data.dataset import open_dataset
from tests.fuzz.harness import Kind
from tests.fuzz.mutations import EXTREMES, HUGE, NASTY, Bytes

CSV = [
    b"a,b,y\n1,2.5,0\n-3e2, 7 ,1\n9007199254740992,.5,2\n",
    b'\xef\xbb\xbfname;"x, y";y\r\n"an; ""n""";1;2\r\n\r\n"two\nlines";3;4',
    b"id\n1\n2\n\n3\n",
]
CELLS = [
    *HUGE,
    *NASTY,
    b"",
    b" ",
    b'""',
    b'"1"',
    b'"a\nb"',
    b"1" * 5000,
    b'"',
    b"1,2",
    b"NaN",
    b"1e39",
    b"9007199254740993",
    b"\xef\xbb\xbf",
]


def _cells(rng: Random, seeds: Sequence[bytes]) -> bytes:
    """A table of other cells, of which few or many are odd."""
    width, odd = rng.choice([1, 2, 3, 200]), rng.choice([0.02, 0.5])
    lines = [[b"a%d" % k for k in range(width)]]
    for _ in range(rng.choice([0, 1, 5, 50])):
        ragged = width + rng.choice([0] * 30 + [-1, 1])
        lines.append([rng.choice(CELLS) if rng.random() < odd else b"%d" % rng.randrange(100) for _ in range(ragged)])
    if rng.random() < 0.2:
        lines[0][rng.randrange(width)] = rng.choice(CELLS)
    return rng.choice([b"\n", b"\r\n", b"\r"]).join(b",".join(line) for line in lines)


def _read_csv(path: Path) -> object:
    data = open_dataset(f"csv:{path}", dtype="float64")
    # Twice, because what is read must not depend on when.
    again = open_dataset(f"csv:{path}", dtype="float64")
    assert data.fingerprint == again.fingerprint
    return data.batch(np.arange(len(data)))


def _parquets() -> list[bytes]:
    kind = pa.fixed_shape_tensor(pa.float32(), [2, 2])
    table = pa.table(
        {
            "x": np.arange(40) / 4,
            "k": np.arange(40),
            "v": pa.array([[k, k + 1] for k in range(40)]),
            "d": pa.array([k % 3 for k in range(40)]).dictionary_encode(),
            "t": pa.ExtensionArray.from_storage(
                kind, pa.FixedSizeListArray.from_arrays(pa.array(np.ones(160, "f4")), 4)
            ),
        }
    )
    contents = []
    for options in (
        {},
        {"compression": "none", "use_dictionary": False},
        {"row_group_size": 7, "compression": "zstd"},
        {"compression": "gzip"},
    ):
        file = io.BytesIO()
        parquet.write_table(table, file, **options)
        contents.append(file.getvalue())
    return contents


def _varints(rng: Random, seeds: Sequence[bytes]) -> bytes:
    """A number of the footer or of a page header, which are variable-length integers, becomes an extreme one."""
    content = bytearray(rng.choice(seeds))
    size = int.from_bytes(content[-8:-4], "little")
    at = rng.choice([len(content) - 8 - size + rng.randrange(size), rng.randrange(4, min(200, len(content)))])
    value, varint = rng.choice(EXTREMES), bytearray()
    while value > 0x7F:
        varint.append(value & 0x7F | 0x80)
        value >>= 7
    varint.append(value)
    content[at : at + 1] = varint
    # The footer's length stands at the end.
    content[-8:-4] = (size + (len(varint) - 1 if at >= len(content) - 8 - size else 0)).to_bytes(4, "little")
    return bytes(content)


def _read_parquet(path: Path) -> object:
    data = open_data(f"parquet:{path}", {})
    return data.batch(np.arange(len(data)))


OWN: tuple[Bytes, ...] = (_cells,)
DATA_CSV = Kind("csv", "t.csv", lambda: CSV[2:], _read_csv, own=OWN)
TRACE_CSV = Kind("trace.csv", "t.csv", lambda: [b"a,b\n0.5,0.7\n0.6,\n", b"1,2\n3,nan\n"], load_trace, own=OWN)
PARQUET = Kind("parquet", "t.parquet", _parquets, _read_parquet, own=(_varints,))
TEXT = Kind(
    "text",
    "t.txt",
    lambda: [b"to be or not to be\r\n" * 20, "être ou ne pas être – \N{GRINNING FACE}".encode() * 9],
    lambda path: open_dataset(f"text:{path}", window=8).batch(np.arange(1)),
)
