"""A stream of timed events between nodes, as arrays that a host can map from files."""

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from distseq.models.data.columns import sha256_of
from distseq.models.data.events import check


@dataclass(frozen=True, eq=False)
class EventStream:
    """E events src -> dst at times t, in order of time; events of equal time keep their order, which is their index.

    src, dst: (E,) int64 node ids from 0. t: (E,) int64. message: (E, F) float32 features. label: (E,) int64 or float.
    nodes: the number of nodes; by default the largest id + 1.
    destinations: (first, one past the last) of the ids from which random negatives are drawn; by default the range of dst.

    Arrays of these types are kept, not copied. ValueError, naming the first bad event by its index, for times that are
    unsorted, not finite or fractional, ids that are negative or not below `nodes`, a dst outside `destinations`, numbers of a
    message or label that are not finite, and arrays that differ in length.

    >>> stream = EventStream(src=np.array([0, 1, 0]), dst=np.array([2, 3, 2]), t=np.array([5, 5, 9]))
    >>> len(stream), stream.nodes, stream.destinations, stream[1:].t.tolist()
    (3, 4, (2, 4), [5, 9])
    """

    src: np.ndarray  # (E,) int64
    dst: np.ndarray  # (E,) int64
    t: np.ndarray  # (E,) int64
    message: np.ndarray | None = None  # (E, F) float32
    label: np.ndarray | None = None  # (E,) int64, float32 or float64
    nodes: int = None  # type: ignore[assignment]
    destinations: tuple[int, int] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        src, dst, t = check.ids("src", self.src), check.ids("dst", self.dst), check.times(self.t)
        check.check_length("dst", dst, len(src))
        check.check_length("t", t, len(src))
        nodes = int(max(src.max(initial=-1), dst.max(initial=-1))) + 1 if self.nodes is None else self.nodes
        for name, found in (("src", src), ("dst", dst)):
            check.refuse(name, found, found >= nodes, f"is not below nodes={nodes}")
        whole = (int(dst.min()), int(dst.max()) + 1) if len(dst) else (0, nodes)
        first, end = whole if self.destinations is None else self.destinations
        if not 0 <= first <= end <= nodes:
            raise ValueError(f"destinations must be a range of ids within 0 .. {nodes}: got {(first, end)}")
        check.refuse("dst", dst, (dst < first) | (dst >= end), f"is not one of the destinations {first} .. {end - 1}")
        made = {"src": src, "dst": dst, "t": t, "nodes": int(nodes), "destinations": (int(first), int(end))}
        made["message"] = None if self.message is None else check.messages(self.message, len(src))
        made["label"] = None if self.label is None else check.labels(self.label, len(src))
        self.__dict__.update(made)

    def __len__(self) -> int:
        """The number of events E."""
        return len(self.src)

    def __getitem__(self, events: slice) -> "EventStream":
        """Consecutive events as views of the arrays; nodes and destinations stay."""
        if not isinstance(events, slice) or events.step not in (None, 1):
            raise TypeError(f"an event stream is cut by stream[a:b]: got {events!r}")
        # Not through __post_init__: what was checked once stays true, and a batch should cost no look at its events.
        part = object.__new__(EventStream)
        kept = {each.name: getattr(self, each.name) for each in fields(self)}
        part.__dict__.update(kept | {name: value[events] for name, value in self.arrays().items()})
        return part

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays that the stream has, by name."""
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in found.items() if isinstance(value, np.ndarray)}

    @property
    def features(self) -> int:
        """The number F of message features; 0 without messages."""
        return 0 if self.message is None else self.message.shape[1]

    @property
    def bytes(self) -> int:
        """Bytes of all arrays."""
        return sum(value.nbytes for value in self.arrays().values())

    @cached_property
    def fingerprint(self) -> str:
        """Hexadecimal sha256 of all arrays, the number of nodes and the destinations; hosts compare it."""
        return sha256_of(self.arrays(), self.nodes, self.destinations)
