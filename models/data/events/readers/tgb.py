"""`tgb:FILE.npz`: the dictionary of a link prediction data set of TGB (`dataset.full_data`), saved with numpy.savez."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from distseq.models.data.events.data import EventData
from distseq.models.data.events.readers.build import build
from distseq.models.data.events.readers.npz import read_arrays
from distseq.models.data.events.stream import EventStream


def open_tgb(path: str, sort: bool = False) -> EventData:
    """Arrays sources, destinations, timestamps, and those of edge_feat, w and edge_label that are there.

    message: edge_feat (E, F), or the weights w as its only feature where there is no edge_feat. label: edge_label. edge_idxs, the
    numbers of the rows, is not needed. ValueError, naming file and event.
    """
    spec = f"tgb:{path}"
    return EventData(_stream(spec, read_arrays(spec, path, ("sources", "destinations", "timestamps")), sort))


def from_tgb(full_data: Mapping[str, Any], sort: bool = False) -> EventStream:
    """The stream of a `full_data` dictionary in memory; what is None in it counts as missing.

    >>> events = {"sources": [0, 1], "destinations": [2, 2], "timestamps": [5, 6], "edge_feat": None, "w": [1.0, 3.0]}
    >>> from_tgb(events).message.tolist()
    [[1.0], [3.0]]
    """
    found = {name: np.asarray(value) for name, value in full_data.items() if value is not None}
    return _stream("tgb:full_data", found, sort)


def _stream(spec: str, found: Mapping[str, np.ndarray], sort: bool) -> EventStream:
    message = found.get("edge_feat")
    if message is None and "w" in found:
        message = found["w"].reshape(-1, 1)
    if message is not None and message.ndim == 1:
        message = message[:, None]
    ends = {"src": found["sources"], "dst": found["destinations"]}
    return build(spec, found["timestamps"], sort, message=message, label=found.get("edge_label"), **ends)[0]
