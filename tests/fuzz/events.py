"""Mutants of event data: JODIE's CSV files, text, archives, and the arrays and header of a folder."""

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import numpy as np

from distseq.models.data.events import EventData, open_events
from distseq.models.data.events.folder import save_events
from distseq.models.data.events.statistics import of_batch, recurrence
from distseq.models.data.events.stream import EventStream
from tests.fuzz import archives, tables
from tests.fuzz.harness import Kind

STREAM = EventStream(
    src=np.array([0, 1, 0, 2]),
    dst=np.array([3, 4, 3, 3]),
    t=np.array([5, 5, 7, 9]),
    message=np.ones((4, 2), np.float32),
)


def _read(prefix: str) -> Callable[[Path], object]:
    def read(path: Path) -> object:
        stream = open_events(f"{prefix}:{path}").stream
        return len(stream) and (of_batch(stream, 3), recurrence(stream))

    return read


def _contents(name: str) -> Callable[[], list[bytes]]:
    def seeds() -> list[bytes]:
        with tempfile.TemporaryDirectory() as folder:
            save_events(EventData(STREAM), f"{folder}/e")
            return [Path(folder, "e", name).read_bytes()]

    return seeds


def _in_a_folder(name: str) -> Callable[[Path], object]:
    def read(path: Path) -> object:
        with tempfile.TemporaryDirectory() as folder:
            save_events(EventData(STREAM), f"{folder}/e")
            shutil.copy(path, f"{folder}/e/{name}")
            return _read("folder")(Path(folder, "e"))

    return read


def _times(rng: Random, seeds: Sequence[bytes]) -> bytes:
    """Other numbers behind the header, mostly in order."""
    times = np.sort(np.array([rng.choice(NUMBERS) for _ in range(4)]))
    if rng.random() < 0.2:
        times = times[::-1]
    return rng.choice(seeds)[: -times.nbytes] + times.tobytes()


def _header(rng: Random, seeds: Sequence[bytes]) -> bytes:
    """Another value of one key."""
    header = json.loads(rng.choice(seeds))
    key = rng.choice(list(header))
    header[key] = rng.choice(
        [None, True, 4, 5, 9, 2**70, 1e300, "", "<i8", [], [3, 4], [3, 5], [1, 2], [2, 2], [[]], {}]
    )
    return json.dumps(header, indent=rng.choice([None, 0, 3])).encode()


NUMBERS = [-(2**63), -1, 0, 0, 1, 7, 2**62, 2**63 - 1]
EVENTS_NPZ = Kind(
    "events.npz",
    "e.npz",
    archives.saved(**{name: getattr(STREAM, name) for name in ("src", "dst", "t", "message")}, nodes=np.array(9)),
    _read("npz"),
    own=archives.OWN,
)
JODIE = Kind(
    "jodie",
    "e.csv",
    lambda: [b"user,item,timestamp,state_label,features\n0,0,0.0,0,1,2\n1,0,36.0,1,3,.5\n0,7,40,0,5,1e3\n"],
    _read("jodie"),
    own=tables.OWN,
)
SNAP = Kind("snap", "e.txt", lambda: [b"# from\n0 1 5\n1 2 6\n\n0 0 6 # loop\n7 3 9\n"], _read("snap"))
EVENTS_NPY = Kind("events.npy", "t.npy", _contents("t.npy"), _in_a_folder("t.npy"), own=(_times,))
EVENTS_HEADER = Kind(
    "events.json", "header.json", _contents("header.json"), _in_a_folder("header.json"), own=(_header,)
)
