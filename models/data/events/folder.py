"""`folder:DIR`: event data as a folder of .npy files that hosts map, with header.json beside them."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from distseq.coding.npy_file import map_npy
from distseq.models.data.events.data import EventData
from distseq.models.data.events.readers.build import naming
from distseq.models.data.events.split import Split
from distseq.models.data.events.stream import EventStream
from distseq.models.data.files import check_file

HEADER, FORMAT = "header.json", "distseq events 1"
NEEDED, OPTIONAL = ("src", "dst", "t"), ("message", "label", "negatives")
# Bytes of the largest header: what is longer is none.
LARGEST = 1 << 16


def save_events(data: EventData, folder: str | Path) -> None:
    """Writes a folder that `load_events` reads. It appears under its name only when it is complete.

    ValueError if there is something of this name already, or it can't be written; then nothing is left behind.

    >>> import tempfile
    >>> from distseq.models.data.events import open_events
    >>> with tempfile.TemporaryDirectory() as place:
    ...     save_events(open_events("flights"), f"{place}/flights")
    ...     len(open_events(f"folder:{place}/flights").stream)
    40000
    """
    target = Path(folder)
    if os.path.lexists(target):
        raise ValueError(f"can't write events to {str(target)!r}: it exists")
    arrays = data.stream.arrays() | ({} if data.negatives is None else {"negatives": data.negatives})
    header = {
        "format": FORMAT,
        "arrays": {name: [array.dtype.str, list(array.shape)] for name, array in arrays.items()},
        "nodes": data.stream.nodes,
        "destinations": data.stream.destinations,
        "split": None if data.split is None else [data.split.first_val, data.split.first_test],
    }
    # In the same folder, because a file system renames only what lies in it.
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        try:
            for name, array in arrays.items():
                np.save(partial / f"{name}.npy", array, allow_pickle=False)
            (partial / HEADER).write_text(json.dumps(header, indent=1), encoding="utf-8")
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise ValueError(f"can't write events to {str(target)!r}: {error.strerror}") from None


def load_events(path: str) -> EventData:
    """The event data of a folder, its arrays mapped. ValueError, naming the file, for what is missing, damaged or refused."""
    spec = f"folder:{path}"
    header = _header(spec, Path(path) / HEADER)
    arrays = {name: _mapped(spec, Path(path) / f"{name}.npy", *form) for name, form in header["arrays"].items()}
    negatives = arrays.pop("negatives", None)
    with naming(spec, lambda row: f"data {spec!r} event {row}"):
        stream = EventStream(**arrays, nodes=header["nodes"], destinations=tuple(header["destinations"]))
        split = None if header["split"] is None else Split(header["split"][0], header["split"][1], len(stream))
        return EventData(stream, split, negatives)


def _mapped(spec: str, path: Path, dtype: str, shape: list[int]) -> np.ndarray:
    check_file(f"data {spec!r}: {path.name}", str(path))
    try:
        found = map_npy(path)
    except ValueError as error:
        raise ValueError(f"can't read data {spec!r}: {error}") from None
    if found.dtype.str != dtype or list(found.shape) != shape:
        raise ValueError(f"data {spec!r}: {path.name} holds {found.dtype.str} {list(found.shape)}, not {dtype} {shape}")
    return found


def _header(spec: str, path: Path) -> dict[str, Any]:
    """What the header says, if it has the form that `save_events` gives it."""
    check_file(f"data {spec!r}: {path.name}", str(path))
    try:
        with open(path, encoding="utf-8") as file:
            header = json.loads(file.read(LARGEST))
    # RecursionError: brackets nested too deeply.
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError(f"can't read data {spec!r}: {path.name} is none of format {FORMAT!r}")
    if not _has_form(header):
        raise ValueError(f"can't read data {spec!r}: {path.name} is damaged")
    return header


def _has_form(header: dict[str, Any]) -> bool:
    arrays, split = header.get("arrays"), header.get("split")
    return (
        "split" in header
        and isinstance(arrays, dict)
        and set(NEEDED) <= set(arrays) <= {*NEEDED, *OPTIONAL}
        and all(isinstance(form, list) and len(form) == 2 for form in arrays.values())
        and type(header.get("nodes")) is int
        and _are_two(header.get("destinations"))
        and (split is None or _are_two(split))
    )


def _are_two(numbers: Any) -> bool:
    return isinstance(numbers, list) and len(numbers) == 2 and all(type(number) is int for number in numbers)
