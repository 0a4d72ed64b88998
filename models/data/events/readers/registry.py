"""The specs of event data, and what opens each."""

import inspect
from collections.abc import Callable
from typing import Any

from distseq.coding.factory import load_factory
from distseq.coding.import_string import load_object
from distseq.models.data.dataset import call_opener
from distseq.models.data.events.data import EventData
from distseq.models.data.events.stream import EventStream

HERE = "distseq.models.data.events"
# Strings, so that pyarrow and torch are imported only by the readers that need them.
READERS = {
    "jodie": f"{HERE}.readers.jodie:open_jodie",
    "ml": f"{HERE}.readers.ml_csv:open_ml_csv",
    "snap": f"{HERE}.readers.snap:open_snap",
    "tgb": f"{HERE}.readers.tgb:open_tgb",
    "tgb-seq": f"{HERE}.readers.tgb_seq:open_tgb_seq",
    "tgl": f"{HERE}.readers.tgl:open_tgl",
    "npz": f"{HERE}.readers.npz:open_npz",
    "folder": f"{HERE}.folder:load_events",
}
# Those that need no file.
MADE = {
    "flights": f"{HERE}.readers.flights:open_flights",
    "sequence": f"{HERE}.generators.sequence:sequence",
    "hubs": f"{HERE}.generators.hubs:hubs",
}


def open_events(spec: str, /, **args: Any) -> EventData:
    """The event data that a spec names: `PREFIX:PATH`, a name of MADE, or `module:function` of the user's own.

    `args` are passed to what opens it. ValueError, in one line, for what does not exist, does not take these arguments, or holds
    events that are refused.

    >>> open_events("flights").stream.nodes
    3420
    """
    prefix, _, path = spec.partition(":")
    if path and prefix in READERS:
        return _open(spec, READERS[prefix], [path], args)
    if spec in MADE:
        return _open(spec, MADE[spec], [], args)
    if not path or not prefix or prefix in (*READERS, *MADE):
        known = ", ".join([*MADE, *(f"{name}:PATH" for name in READERS)])
        raise ValueError(f"unknown event data {spec!r}; known: {known}, or module:function of your own")
    opener = load_factory(spec, "set of events", _is_events, "class or function of event data", own_classes=True)
    return _data(call_opener(spec, opener, [], args))


def _open(spec: str, target: str, names: list[str], args: dict[str, Any]) -> EventData:
    opener: Callable[..., EventData] = load_object(target)
    known = inspect.signature(opener).parameters
    for name, value in args.items():
        kind = known[name].annotation if name in known else object
        # "no" would count as true, and True as 1.
        fits = isinstance(value, int | float if kind is float else kind)
        if not fits or (isinstance(value, bool) and kind not in (bool, object)):
            raise ValueError(f"data {spec!r}: {name} must be {getattr(kind, '__name__', kind)}: got {value!r}")
    return call_opener(spec, opener, names, args)


def _is_events(kind: type) -> bool:
    return issubclass(kind, EventData | EventStream)


def _data(found: Any) -> EventData:
    if isinstance(found, EventData):
        return found
    if isinstance(found, EventStream):
        return EventData(found)
    raise ValueError(f"event data must be an EventStream or EventData: got {type(found).__name__}")
