"""Checks the arrays of an event stream, and converts them where their type differs. An error names the first bad event."""

import numpy as np

LARGEST = np.iinfo(np.int64).max
# Node ids lie below, so that sums of two of them fit int64.
IDS = 2**62


class BadEventError(ValueError):
    """An event that is refused: its row, counted from 0, and why."""

    def __init__(self, row: int, why: str) -> None:
        super().__init__(f"event {row}: {why}")
        self.row, self.why = row, why


def whole(name: str, values: np.ndarray, floats: bool = False) -> np.ndarray:
    """(E,) int64 of an array of whole numbers; with `floats`, of one of floating-point numbers that are whole as well.

    BadEventError for a number that int64 does not hold, ValueError for another kind of array.
    """
    values = _vector(name, values)
    if values.dtype.kind == "f" and floats:
        return _whole_floats(name, values)
    if values.dtype.kind not in "iu":
        raise ValueError(f"{name} must hold whole numbers: got an array of {values.dtype}")
    if values.dtype == np.uint64:
        refuse(name, values, values > LARGEST, "does not fit int64")
    return values.astype(np.int64, copy=False)


def ids(name: str, values: np.ndarray) -> np.ndarray:
    """(E,) int64 node ids. BadEventError for one that is negative or at least IDS."""
    found = whole(name, values)
    refuse(name, found, found < 0, "is negative: nodes are numbered from 0")
    refuse(name, found, found >= IDS, "is too large: nodes have numbers below 2^62")
    return found


def times(values: np.ndarray) -> np.ndarray:
    """(E,) int64 times in order. BadEventError for the first that is no whole number or earlier than the one before it."""
    t = whole("t", values, floats=True)
    check_sorted(t)
    return t


def check_sorted(t: np.ndarray) -> None:
    """BadEventError for the first time that is earlier than the one before it."""
    early = np.flatnonzero(t[1:] < t[:-1])
    if len(early):
        row = int(early[0]) + 1
        raise BadEventError(row, f"t={t[row]} is earlier than t={t[row - 1]} before it: events must be sorted by time")


def messages(values: np.ndarray, events: int) -> np.ndarray:
    """(E, F) float32. BadEventError for the first row with a number that is not finite as float32."""
    values = np.asarray(values)
    if values.ndim != 2 or values.dtype.kind not in "biuf":
        raise ValueError(f"message must be an array of numbers (events, features): got {values.dtype} {values.shape}")
    check_length("message", values, events)
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float32, copy=False)
    # A row with a number that is not finite has a sum that is not either. So has a row whose sum overflows: these few are
    # looked at number by number, which for all rows would take an array as large as the messages.
    with np.errstate(over="ignore", invalid="ignore"):
        suspects = np.flatnonzero(~np.isfinite(rounded.sum(1)))
    bad = ~np.isfinite(rounded[suspects])
    if bad.any():
        at, column = (int(each) for each in np.argwhere(bad)[0])
        row = int(suspects[at])
        raise BadEventError(row, f"message[{column}]={values[row, column]} is not a finite float32")
    return rounded


def labels(values: np.ndarray, events: int) -> np.ndarray:
    """(E,) int64, float32 or float64. BadEventError for the first label that is not finite."""
    values = _vector("label", values)
    check_length("label", values, events)
    if values.dtype.kind == "f" and values.dtype.itemsize <= 8:
        refuse("label", values, ~np.isfinite(values), "is not a finite number")
        return values.astype(np.float32 if values.dtype.itemsize < 8 else np.float64, copy=False)
    return whole("label", values.view(np.uint8) if values.dtype == bool else values)


def check_length(name: str, values: np.ndarray, events: int) -> None:
    """ValueError unless an array has one row for each event."""
    if values.shape[:1] != (events,):
        rows = f"{len(values)} rows" if values.ndim else "no rows"
        raise ValueError(f"{name} has {rows}, and there are {events} events")


def refuse(name: str, values: np.ndarray, bad: np.ndarray, why: str) -> None:
    """BadEventError for the first bad value (E,), if there is one."""
    if bad.any():
        row = int(np.argmax(bad))
        raise BadEventError(row, f"{name}={values[row]} {why}")


def _vector(name: str, values: np.ndarray) -> np.ndarray:
    # A memory map becomes a plain array that shares its pages.
    values = np.asarray(values)
    if values.ndim != 1:
        raise ValueError(f"{name} must have one number for each event: got shape {values.shape}")
    return values


def _whole_floats(name: str, values: np.ndarray) -> np.ndarray:
    refuse(name, values, ~np.isfinite(values), "is not a finite number")
    refuse(name, values, values != np.rint(values), "is a fraction: times are whole numbers, such as seconds")
    # 2^63 itself is a float64, and the first that int64 does not hold.
    refuse(name, values, ~((values >= -(2.0**63)) & (values < 2.0**63)), "does not fit int64")
    return values.astype(np.int64)
