"""`flights`: 40,000 departures from New York in 2013, planes to airports, which come with distseq.

Made from nycflights13 (Wickham 2021), flights of the US Bureau of Transportation Statistics, published under CC0.
"""

from importlib.resources import as_file, files

import numpy as np

from distseq.models.data.events.data import EventData
from distseq.models.data.events.readers.build import bipartite, build
from distseq.models.data.events.readers.npz import read_arrays

# Minutes of delay from which a departure counts as late, the usual bound of airlines' statistics.
LATE = 15


def open_flights() -> EventData:
    """Events plane -> destination airport, t in minutes; label: 1 if the departure was 15 minutes late or more, else 0.

    message (E, 21): delay in hours and distance in thousands of miles, then the carrier (16) and the origin (3), one-hot. The
    message of an event holds its own label's delay: predict the label from what was before it.
    """
    names = ("t", "plane", "dest", "origin", "carrier", "delay", "dist")
    with as_file(files("distseq.models.data.events") / "flights_40k.npz") as path:
        found = read_arrays("flights", str(path), names)
    numbers = np.stack([found["delay"] / 60, found["dist"] / 1000], 1)
    one_hot = [np.eye(int(found[name].max()) + 1)[found[name]] for name in ("carrier", "origin")]
    message = np.concatenate([numbers, *one_hot], 1).astype(np.float32)
    # Differences, which take a third of the bytes.
    t = np.cumsum(found["t"], dtype=np.int64)
    label = (found["delay"] >= LATE).astype(np.int64)
    ends = bipartite(found["plane"], found["dest"])
    return EventData(build("flights", t, False, message=message, label=label, **ends)[0])
