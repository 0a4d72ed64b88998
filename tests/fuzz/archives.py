"""Mutants of .npz files: traces, and data of named arrays."""

import io
import struct
import warnings
import zipfile
from collections.abc import Callable, Sequence
from random import Random

import numpy as np

from distseq.cluster.trace import load_trace
from distseq.models.data.dataset import open_dataset
from tests.fuzz.harness import Kind
from tests.fuzz.mutations import NASTY, Bytes

SHAPES = [
    "(10**12,)",
    "(1000000000000,)",
    "(-1, 3)",
    "(3, -1)",
    "()",
    "(0,)",
    "(3, 4",
    "(True, 4)",
    "('a',)",
    "(1.5,)",
    "[3, 4]",
    "3",
    "(2**62, 4)",
]
SHAPES += [
    f"({2**31}, {2**31}, 4)",
    f"({2**63},)",
    "(" * 300 + ")" * 300,
    "-" * 3000 + "1",
    "(3, 4), " * 50,
    "(12,)",
    "(4, 3)",
    "(1, 12)",
]
PACKINGS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
DTYPES = [
    "<f8",
    "<f4",
    "<i8",
    ">f8",
    "|b1",
    "<f2",
    "<f16",
    "<c16",
    "|O",
    "<U3",
    "|S7",
    "<M8[s]",
    "|V8",
    "<f8999",
    "",
    "O",
    "(1000000000,)f8",
    "<U500000000",
]


def saved(**arrays: np.ndarray) -> Callable[[], list[bytes]]:
    def seeds() -> list[bytes]:
        contents = []
        for save in (np.savez, np.savez_compressed):
            file = io.BytesIO()
            save(file, **arrays)  # type: ignore[arg-type]
            contents.append(file.getvalue())
        return contents

    return seeds


def _members(rng: Random, seeds: Sequence[bytes]) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(rng.choice(seeds))) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def _zipped(rng: Random, members: Sequence[tuple[str, bytes]]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", rng.choice(PACKINGS)) as archive, warnings.catch_warnings():
        # Twice the same name.
        warnings.simplefilter("ignore")
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def _npy(header: str, rest: bytes, version: bytes = b"\1\0") -> bytes:
    text = header.encode("latin1", "replace") + b"\n"
    return (
        b"\x93NUMPY" + version + struct.pack("<H" if version == b"\1\0" else "<I", min(len(text), 65535)) + text + rest
    )


def _headers(rng: Random, seeds: Sequence[bytes]) -> bytes:
    """A member whose header says something else, in a file that is whole otherwise."""
    members = _members(rng, seeds)
    name = rng.choice(list(members))
    fields = {
        "descr": repr(rng.choice(DTYPES)),
        "fortran_order": rng.choice(["False", "True", "None"]),
        "shape": rng.choice(SHAPES),
    }
    for key in list(fields):
        if rng.random() < 0.1:
            del fields[key]
    header = (
        "{" + ", ".join(f"{key!r}: {value}" for key, value in fields.items()) + rng.choice(["}", ", }", "", "} # x"])
    )
    rest = rng.choice([b"", members[name][-96:], bytes(8), bytes(1 << 20)])
    version = rng.choice([b"\1\0", b"\1\0", b"\2\0", b"\3\0", b"\xff\xff"])
    return _zipped(rng, list((members | {name: _npy(header, rest, version)}).items()))


def _directory(rng: Random, seeds: Sequence[bytes]) -> bytes:
    """A field of the archive's directory becomes an extreme."""
    content = bytearray(rng.choice(seeds))
    mark = rng.choice([b"PK\1\2", b"PK\3\4", b"PK\5\6"])
    at = [k for k in range(len(content)) if content[k : k + 4] == mark]
    place = rng.choice(at) + rng.choice(range(4, 46, 2))
    width = rng.choice([2, 4])
    value = rng.choice([0, 1, 8, 12, 99, 2**16 - 1, 2**31 - 1, 2**32 - 1]) % 2 ** (8 * width)
    content[place : place + width] = value.to_bytes(width, "little")
    return bytes(content)


def _names(rng: Random, seeds: Sequence[bytes]) -> bytes:
    """Members that are renamed, repeated, or no arrays."""
    members = list(_members(rng, seeds).items())
    other = rng.choice(
        ["x", "../x.npy", " ", "a/", "x.npy.npy", "a\0.npy", "é" * 100, "x" * 3000 + ".npy", members[0][0]]
    )
    members.append((other, rng.choice([members[0][1], b"", b"\x93NUMPY", rng.choice(NASTY) * 50])))
    rng.shuffle(members)
    return _zipped(rng, members[rng.randrange(2) :])


def _packed(rng: Random, seeds: Sequence[bytes]) -> bytes:
    """Much in little: zeros, whose size the header may or may not tell."""
    count = rng.choice([10**3, 10**5, 10**6])
    told = rng.choice([count, count * 1000, 10])
    members = _members(rng, seeds)
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({told},)}}"
    name = rng.choice([*members, "zeros.npy"])
    return _zipped(rng, list((members | {name: _npy(header, bytes(4 * count))}).items()))


OWN: tuple[Bytes, ...] = (_headers, _headers, _directory, _names, _packed)
RNG = np.random.default_rng(0)
TRACE = Kind(
    "trace.npz",
    "t.npz",
    saved(times=RNG.random((3, 4)), load=np.array(0.5), slope=np.array(2.0), master=np.array(0.1)),
    load_trace,
    own=OWN,
)
ARRAYS = Kind(
    "arrays",
    "a.npz",
    saved(x=RNG.random((3, 4)), y=np.arange(3), b=np.ones((3, 2, 2), bool)),
    lambda path: open_dataset(f"arrays:{path}").batch(np.arange(1)),
    own=OWN,
)
