"""Splits of a stream into training, validation and test events, in order of time; nodes that training never sees."""

from dataclasses import dataclass

import numpy as np

from distseq.models.data.events.stream import EventStream

# As TGN, TGB and TGB-Seq split: 70 % of the events, then 15 % each, cut at quantiles of time.
VAL, TEST = 0.70, 0.85
NAMES = ("training", "validation", "test")


@dataclass(frozen=True)
class Split:
    """Training events come first, validation events begin at index `first_val`, test events at `first_test`.

    ValueError if one of the three is empty, or if the indices are out of order.
    """

    first_val: int
    first_test: int
    events: int

    def __post_init__(self) -> None:
        bounds = (0, self.first_val, self.first_test, self.events)
        for name, first, end in zip(NAMES, bounds[:-1], bounds[1:], strict=True):
            if first >= end:
                raise ValueError(
                    f"the split leaves no {name} events: validation begins at event {self.first_val}, "
                    f"test at {self.first_test} of {self.events}"
                )

    @property
    def train(self) -> slice:
        """The training events, to cut a stream with: stream[split.train]."""
        return slice(0, self.first_val)

    @property
    def val(self) -> slice:
        """The validation events."""
        return slice(self.first_val, self.first_test)

    @property
    def test(self) -> slice:
        """The test events."""
        return slice(self.first_test, self.events)


def chronological(stream: EventStream, val: float = VAL, test: float = TEST) -> Split:
    """Training up to the time below which the share `val` of events lies, test events after that of the share `test`.

    Events of equal time are never cut apart: train t <= val_time < validation <= test_time < test, where the times are
    quantiles of t with linear interpolation. ValueError if a part would be empty, or the shares are not 0 < val < test < 1.

    >>> stream = EventStream(src=np.zeros(10, np.int64), dst=np.ones(10, np.int64), t=np.arange(10))
    >>> chronological(stream)
    Split(first_val=7, first_test=8, events=10)
    """
    if not 0 < val < test < 1:
        raise ValueError(f"a chronological split needs 0 < val < test < 1: got val={val}, test={test}")
    if not len(stream):
        raise ValueError("a stream without events cannot be split")
    times = np.quantile(stream.t, [val, test])
    first_val, first_test = (int(each) for each in np.searchsorted(stream.t, times, side="right"))
    return Split(first_val, first_test, len(stream))


def from_column(column: np.ndarray) -> Split:
    """The split of a column that holds 0 for training, 1 for validation and 2 for test events, in this order.

    ValueError, naming the first event, where it holds other numbers or goes back.

    >>> from_column(np.array([0, 0, 1, 2]))
    Split(first_val=2, first_test=3, events=4)
    """
    column = np.asarray(column)
    other = np.flatnonzero((column < 0) | (column > 2))
    if len(other):
        raise ValueError(f"event {other[0]} has split={column[other[0]]}: it must be 0, 1 or 2")
    back = np.flatnonzero(column[1:] < column[:-1])
    if len(back):
        raise ValueError(
            f"event {back[0] + 1} has split={column[back[0] + 1]} after split={column[back[0]]}: "
            f"training, validation and test must follow each other"
        )
    return Split(int(np.searchsorted(column, 1)), int(np.searchsorted(column, 2)), len(column))


@dataclass(frozen=True, eq=False)
class NewNodes:
    """A split in which some nodes are held out of training.

    held: (nodes,) bool, the nodes that are held out. new: (nodes,) bool, those of no event in `train`, which may be more.
    train: (E,) bool, the training events without a node that is held out. val, test: (E,) bool, the validation and test events
    with a new node.
    """

    held: np.ndarray
    new: np.ndarray
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def hold_out(stream: EventStream, split: Split, share: float = 0.1, seed: int = 0) -> NewNodes:
    """Holds out nodes, as many as the share of all that have events, drawn among those of validation and test (TGN, 5.1).

    Nodes that have no training event anyway are new as well. ValueError for a share outside 0 .. 1, or one that leaves no
    training events.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the share of nodes to hold out must be in 0 .. 1: got {share}")
    ends = np.stack([stream.src, stream.dst], 1)
    later = np.unique(ends[split.first_val :])
    count = min(int(share * len(np.unique(ends))), len(later))
    held = np.zeros(stream.nodes, bool)
    held[np.random.default_rng(seed).choice(later, count, replace=False)] = True
    train = np.zeros(len(stream), bool)
    train[split.train] = ~held[ends[split.train]].any(1)
    if not train.any():
        raise ValueError(f"no training event is left when {count} of {stream.nodes} nodes are held out")
    new = np.ones(stream.nodes, bool)
    new[ends[train]] = False
    touched, masks = new[ends].any(1), {}
    for name in ("val", "test"):
        masks[name] = np.zeros(len(stream), bool)
        masks[name][getattr(split, name)] = touched[getattr(split, name)]
    return NewNodes(held, new, train, **masks)
