"""Pipeline settings: parts per job, copies per part, and the workers on which a part may run.

To the ledger, a pipelined job is streamed gradient coding that tolerates n - 1 stragglers: `parts` groups of one part each, any
row of which suffices (docs/decisions/011). distseq.scheduling.pipeline_scheduler assigns the parts to workers.
"""

from dataclasses import dataclass

from distseq.coding.schemes.gradient_coding import GC
from distseq.coding.schemes.scheme import Scheme


@dataclass(frozen=True)
class Pipeline:
    """The settings of a pipeline. ValueError for a setting out of range, or for both places and lanes.

    parts: parts that a job is cut into.
    copies: copies of one part that may be in flight at once.
    lanes: static sets of neighbouring workers; a job runs in the lane that had the fewest open jobs. 1 = all workers.
    burst: parts that may travel in one message when there are more parts than idle workers, so that its start-up is paid once.
    places: workers that hold the data of a part, if data cannot move: part g runs only on the `places` workers from
        g n / parts on. 0 = every worker.

    >>> Pipeline(parts=8, copies=2).name
    'pipeline:8,2'
    """

    parts: int = 1
    copies: int = 1
    lanes: int = 1
    burst: int = 1
    places: int = 0

    def __post_init__(self) -> None:
        for name in ("parts", "copies", "lanes", "burst"):
            if getattr(self, name) < 1:
                raise ValueError(f"pipeline needs {name} >= 1: got {name}={getattr(self, name)}")
        if self.places < 0:
            raise ValueError(f"pipeline needs places >= 0, 0 = every worker: got places={self.places}")
        if self.places and self.lanes > 1:
            raise ValueError(f"pipeline takes places or lanes, not both: got places={self.places}, lanes={self.lanes}")

    def scheme(self, n: int) -> Scheme:
        """The scheme that lays a job out over n workers. ValueError when n is smaller than lanes or places."""
        for name in ("lanes", "places"):
            if getattr(self, name) > n:
                raise ValueError(f"pipeline needs {name} <= workers: got {name}={getattr(self, name)}, workers={n}")
        return GC(n, n - 1, self.parts)

    @property
    def name(self) -> str:
        usual = Pipeline(self.parts, self.copies)
        more = [f",{k}={v}" for k, v in vars(self).items() if v != getattr(usual, k)]
        return f"pipeline:{self.parts},{self.copies}" + "".join(more)

    def sites(self, n: int) -> list[range]:
        """The sets of workers (numbers modulo n) that parts run on: one per lane or, with places, one per part."""
        if self.places:
            return [range(g * n // self.parts, g * n // self.parts + min(self.places, n)) for g in range(self.parts)]
        lanes = min(self.lanes, n)
        return [range(-(-k * n // lanes), -(-(k + 1) * n // lanes)) for k in range(lanes)]
