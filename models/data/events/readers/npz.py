"""`npz:FILE`: arrays named after the fields of a stream."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from distseq.coding.npz_file import listed, read_npz
from distseq.models.data.events.data import EventData
from distseq.models.data.events.readers.build import build, naming
from distseq.models.data.events.split import from_column
from distseq.models.data.files import check_file


def open_npz(path: str, sort: bool = False) -> EventData:
    """Arrays src, dst and t, and those of message, label, split and nodes that are there; others are not looked at.

    split: (E,) 0, 1 or 2 for training, validation and test. nodes: the number of nodes. sort: as for `jodie`. ValueError, naming
    file and event.
    """
    spec = f"npz:{path}"
    found = read_arrays(spec, path, ("src", "dst", "t"))
    more: dict[str, Any] = {name: found[name] for name in ("message", "label") if name in found}
    if "nodes" in found:
        if found["nodes"].shape != () or found["nodes"].dtype.kind not in "iu":
            raise ValueError(
                f"data {spec!r}: nodes must be a whole number: got {found['nodes'].dtype} {found['nodes'].shape}"
            )
        more["nodes"] = int(found["nodes"])
    stream, order = build(spec, found["t"], sort, src=found["src"], dst=found["dst"], **more)
    if "split" not in found:
        return EventData(stream)
    with naming(spec, lambda row: f"data {spec!r} event {row}"):
        return EventData(stream, from_column(found["split"][order]))


def read_arrays(spec: str, path: str, needed: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays of an .npz file. ValueError, naming it, if it can't be read or lacks a needed one."""
    check_file(f"data {spec!r}", path)
    try:
        found = read_npz(path)
    except OSError as error:
        raise ValueError(f"can't read data {spec!r}: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"can't read data {spec!r}: {error}") from None
    missing = [name for name in needed if name not in found]
    if missing:
        raise ValueError(f"data {spec!r} has no array {missing[0]!r}; it has: {listed(found)}")
    return found
