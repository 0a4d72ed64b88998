"""Builds a stream from the columns of a file, naming the file and the row of an event that is refused."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from distseq.models.data.events import check
from distseq.models.data.events.stream import EventStream

Order = np.ndarray | slice  # events of the stream -> rows of the file


def build(
    spec: str, t: np.ndarray, sort: bool, where: Callable[[int], str] | None = None, /, **more: Any
) -> tuple[EventStream, Order]:
    """The stream of columns in the order of a file, and the file's rows in the stream's order.

    where: names a row, counted from 0; by default as an event of the spec. With `sort`, events are put into the order of time,
    those of equal time in the file's; without it, unsorted times are refused. `more`: further fields of the stream.
    """
    named = (lambda row: f"data {spec!r} event {row}") if where is None else where
    with naming(spec, named):
        t = check.whole("t", t, floats=True)
        order = _order(t, sort)
    with naming(spec, lambda row: named(row if isinstance(order, slice) else int(order[row]))):
        for name, values in more.items():
            if isinstance(values, np.ndarray):
                check.check_length(name, values, len(t))
                more[name] = values[order]
        return EventStream(t=t[order], **more), order


def bipartite(user: np.ndarray, item: np.ndarray) -> dict[str, Any]:
    """Fields of a stream in which users are numbered from 0 and items after the last user; both columns count from 0."""
    src, items = check.ids("user", user), check.ids("item", item)
    users = int(src.max(initial=-1)) + 1
    nodes = users + int(items.max(initial=-1)) + 1
    return {"src": src, "dst": users + items, "nodes": nodes, "destinations": (users, nodes)}


@contextmanager
def naming(spec: str, where: Callable[[int], str]) -> Iterator[None]:
    """What is wrong with events becomes a ValueError that names the data and, if it is one event, its row."""
    try:
        yield
    except check.BadEventError as error:
        raise ValueError(f"{where(error.row)}: {error.why}") from None
    except ValueError as error:
        raise ValueError(f"data {spec!r}: {error}") from None


def _order(t: np.ndarray, sort: bool) -> Order:
    if not (t[1:] < t[:-1]).any():
        # A slice, so that what is mapped from a file is not copied.
        return slice(None)
    if sort:
        return np.argsort(t, kind="stable")
    try:
        check.check_sorted(t)
    except check.BadEventError as error:
        raise check.BadEventError(error.row, f"{error.why}, or sort = true sorts them") from None
    raise AssertionError("unsorted times must be refused")
