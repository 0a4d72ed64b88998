"""Into how many parts a job is cut where there are no rounds, how many copies there may be, and where they run.

A job is `parts` groups of one part each, of which any one row suffices: streamed gradient coding that tolerates n - 1
stragglers. Who does what, and when, is distseq.scheduling.pipeline_scheduler.
"""

from dataclasses import dataclass

from distseq.coding.schemes.gradient_coding import GC
from distseq.coding.schemes.scheme import Scheme


@dataclass(frozen=True)
class Pipeline:
    """Into how many parts a job is cut, and how many copies of one may be under way at once.

    With `lanes` > 1 the workers are divided into so many static sets of neighbours; a job stays in the lane that had the
    fewest open jobs. With `places` > 0 data cannot move: part g runs only on the `places` workers from g n / parts on. When
    parts outnumber idle workers, up to `burst` of them travel in one message, and its start-up is paid once.
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
            raise ValueError(f"pipeline needs places >= 0, 0 = anywhere: got places={self.places}")
        if self.places and self.lanes > 1:
            raise ValueError(f"a part has either its places or a lane: got places={self.places}, lanes={self.lanes}")

    def scheme(self, n: int) -> Scheme:
        """How a job is laid out over n workers. ValueError when there are fewer workers than lanes or places."""
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
        """Where parts run on n workers, each modulo n: a lane, or the places of each part."""
        if self.places:
            return [range(g * n // self.parts, g * n // self.parts + min(self.places, n)) for g in range(self.parts)]
        lanes = min(self.lanes, n)
        return [range(-(-k * n // lanes), -(-(k + 1) * n // lanes)) for k in range(lanes)]
