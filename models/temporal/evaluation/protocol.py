"""How a model is evaluated, and how the work is cut into parts."""

from dataclasses import dataclass

import numpy as np

from distseq.models.temporal.options import CHOICES

KINDS = ("uniform", "historical", "published")


@dataclass(frozen=True)
class Protocol:
    """What decides the figures of an evaluation beside the model and the stream. ValueError, in one line, for what does not fit.

    batch: events that are scored from the memory before them, and then included in it. negatives: destinations that each
    ranked event is ranked against; published ones are all used. kind: "uniform" (any destination but the event's own, with
    replacement, as TGB-Seq), "historical" (TGB's hist_rnd) or "published" (the data's). every: one event in so many is ranked;
    all have their one negative for AP. seed: of the negatives. mode: None evaluates in the mode that the model was trained in;
    micro belongs to mode "replay", by default that of the model.

    >>> Protocol(negatives=20, mode="exact").batch
    200
    """

    batch: int = 200
    negatives: int = 50
    kind: str = "uniform"
    every: int = 1
    seed: int = 0
    mode: str | None = None
    micro: int = 0

    def __post_init__(self) -> None:
        for name, least in (("batch", 1), ("negatives", 1), ("every", 1), ("micro", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ValueError(f"evaluation: {name} must be a whole number of at least {least}: got {value!r}")
        if type(self.seed) is not int or not -(2**63) <= self.seed < 2**63:
            raise ValueError(f"evaluation: seed must be a whole number of 64 bits: got {self.seed!r}")
        if self.kind not in KINDS:
            raise ValueError(f"evaluation: kind must be one of {', '.join(KINDS)}: got {self.kind!r}")
        if self.mode not in (None, *CHOICES["mode"]):
            raise ValueError(f"evaluation: mode must be one of {', '.join(CHOICES['mode'])}: got {self.mode!r}")
        if self.micro and self.mode != "replay":
            raise ValueError(f"evaluation: micro belongs to mode 'replay': got mode={self.mode!r}, micro={self.micro}")


def parts(scored: range, count: int, *, batch: int = 200, first: int | None = None) -> list[np.ndarray]:
    """The events of a range in at most `count` consecutive parts of about equal size, cut where batches begin.

    A batch is always scored as a whole, so a cut inside one would have it scored twice. first: where the batches begin, if events
    before the range are streamed over too. ValueError for a count below 1.

    >>> [part.tolist() for part in parts(range(10, 15), 2, batch=2)]
    [[10, 11], [12, 13, 14]]
    """
    if count < 1:
        raise ValueError(f"an evaluation is cut into at least 1 part: got {count}")
    origin = scored.start if first is None else first
    inner = np.arange(origin, scored.stop, batch)
    starts = np.r_[scored.start, inner[inner > scored.start]]
    chosen = np.unique(np.linspace(0, len(starts), min(count, len(starts)) + 1).astype(np.int64)[:-1])
    return np.split(np.arange(scored.start, scored.stop), starts[chosen][1:] - scored.start)
