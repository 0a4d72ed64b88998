"""How long a row may take before its host is killed: from the times of the rows that have arrived, or as it is given."""

from typing import NamedTuple

# Seconds that any row may take, however short the measured ones are: a machine that swaps or starts a program can hold a process
# up for some seconds, and a user still waits for the message.
LEAST = 30.0
# Seconds that a learner's first row may take, about which nothing is known: it may open a large data set or compile a model. The
# same bound as for loading the Work (limits.READY_WITHIN).
UNKNOWN = 300.0
# Times the slowest row seen. Bursts of slowness in recorded traces reach 10 times the usual (docs/regimes.md).
GENEROUS = 20.0


class RowKind(NamedTuple):
    """Rows whose times are alike, per sample."""

    learner: int
    kind: str  # of its payload
    first: bool  # of its learner on its host, where the model is built and the data set opened


class RowLimits:
    """Limits of rows. `given`: seconds of all of them; None: from measured times.

    ValueError unless `given` is positive.

    >>> limits = RowLimits()
    >>> later = RowKind(learner=0, kind="gradient", first=False)
    >>> limits.seconds(later, samples=8, deaths=0)
    300.0
    >>> limits.measured(later, samples=8, seconds=4.0)
    >>> limits.seconds(later, samples=16, deaths=0)
    160.0
    """

    def __init__(self, given: float | None = None) -> None:
        if given is not None and not given > 0:
            raise ValueError(f"row_timeout must be positive: got {given}")
        self._given = given
        self._slowest: dict[RowKind, float] = {}  # seconds per sample

    def measured(self, row: RowKind, samples: float, seconds: float) -> None:
        """A row over so many samples has taken this long."""
        self._slowest[row] = max(self._slowest.get(row, 0.0), seconds / max(1.0, samples))

    def seconds(self, row: RowKind, samples: float, deaths: int) -> float:
        """The limit of a row. It is doubled for each of `deaths`, the hosts that were lost with it in hand."""
        if self._given is not None:
            return self._given
        slowest, samples = self._slowest.get(row), max(1.0, samples)
        if slowest is None:
            # Of the other kinds the slowest, which is no bound of this one.
            others = [s for known, s in self._slowest.items() if known.learner == row.learner]
            return 2.0**deaths * max(UNKNOWN, GENEROUS * max(others, default=0.0) * samples)
        return 2.0**deaths * max(LEAST, GENEROUS * slowest * samples)

    @property
    def unknown(self) -> float:
        """The limit of a row whose job is over."""
        return UNKNOWN if self._given is None else self._given
