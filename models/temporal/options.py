"""The options of a temporal model: their names, what fits together, and the presets of published models."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CHOICES: dict[str, tuple[str, ...]] = {
    "embedding": ("attention", "identity", "projection"),
    "updater": ("gru", "rnn", "mailbox"),
    "message": ("identity", "mlp"),
    "other": ("memory", "neighbors"),
    "aggregation": ("last", "mean"),
    "time": ("frozen", "slow", "learned"),
    "head": ("link", "class"),
    "visible": ("event", "batch"),
    "mode": ("parallel", "pres", "replay", "exact"),
    "prediction": ("step", "time"),
}
# TGN (Rossi et al. 2020), JODIE (Kumar et al. 2019), DyRep (Trivedi et al. 2019) and APAN (Wang et al. 2021).
PRESETS: dict[str, dict[str, str]] = {
    "tgn": {"embedding": "attention", "updater": "gru"},
    "jodie": {"embedding": "projection", "updater": "rnn"},
    "dyrep": {"embedding": "identity", "updater": "rnn", "other": "neighbors"},
    "apan": {"embedding": "identity", "updater": "mailbox"},
}


@dataclass(frozen=True)
class Options:
    """What a temporal model is made of (see TemporalModel for each name). ValueError, in one line, for what does not fit."""

    width: int = 100
    time_width: int = 100
    features: int = 0
    neighbors: int = 10
    heads: int = 2
    slots: int = 10
    classes: int = 2
    dropout: float = 0.1
    embedding: str = "attention"
    updater: str = "gru"
    message: str = "identity"
    other: str = "memory"
    aggregation: str = "last"
    time: str = "frozen"
    head: str = "link"
    visible: str = "event"
    mode: str = "parallel"
    micro: int = 0
    gamma: float = 0.9
    beta: float = 0.1
    prediction: str = "step"

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(
                    f"TemporalModel: {name} must be one of {', '.join(known)}: got {getattr(self, name)!r}"
                )
        least = {
            "width": 1,
            "time_width": 1,
            "features": 0,
            "neighbors": 1,
            "heads": 1,
            "slots": 1,
            "classes": 2,
            "micro": 0,
        }
        for name, lowest in least.items():
            size = getattr(self, name)
            if type(size) is not int or size < lowest:
                raise ValueError(f"TemporalModel: {name} must be a whole number of at least {lowest}: got {size!r}")
        if self.width % self.heads:
            raise ValueError(f"TemporalModel: heads must divide width: got width={self.width}, heads={self.heads}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"TemporalModel: dropout must be at least 0 and below 1: got {self.dropout}")
        if not 0 < self.gamma < 1:
            raise ValueError(f"TemporalModel: gamma must be between 0 and 1: got {self.gamma}")
        if not 0 <= self.beta < float("inf"):
            raise ValueError(f"TemporalModel: beta must be a number of at least 0: got {self.beta}")
        if (self.mode == "replay") != (self.micro > 0):
            raise ValueError(
                f"TemporalModel: micro >= 1 belongs to mode replay: got mode={self.mode!r}, micro={self.micro}"
            )
        self._check_updates()
        if self.mode == "exact":
            self._check_exact()

    def _check_updates(self) -> None:
        """ValueError for messages that the updater does not have, or whose mean cannot be stored."""
        if self.updater == "mailbox":
            for name, only in {"message": "identity", "other": "memory", "aggregation": "last"}.items():
                if getattr(self, name) != only:
                    raise ValueError(
                        f"TemporalModel: updater='mailbox' attends over stored messages and needs {name}={only!r}: "
                        f"got {getattr(self, name)!r}"
                    )
        if self.aggregation == "mean":
            if self.time != "frozen":
                raise ValueError(
                    f"TemporalModel: aggregation='mean' stores time encodings, needs time='frozen': got {self.time!r}"
                )
            if self.other != "memory":
                raise ValueError(f"TemporalModel: aggregation='mean' needs other='memory': got {self.other!r}")

    def _check_exact(self) -> None:
        """ValueError where the memory of batch size 1 cannot be had by the order of the events' endpoints."""
        reasons = {
            ("updater", "mailbox"): "an event writes its neighbors' mailboxes, not only its endpoints",
            ("other", "neighbors"): "an update reads the memory of neighbors, not only of its endpoints",
            (
                "aggregation",
                "mean",
            ): "a mean is over the messages of a batch, and the batch of each event is that event alone",
            ("visible", "batch"): "neighbors as of the start of a batch depend on its size",
        }
        for (name, value), reason in reasons.items():
            if getattr(self, name) == value:
                raise ValueError(f"TemporalModel: mode 'exact' does not fit {name}={value!r}: {reason}")


def options_of(preset: str, given: Mapping[str, Any]) -> Options:
    """The preset's options, replaced by those given. ValueError for an unknown preset or option.

    >>> options_of("jodie", {"width": 8}).embedding
    'projection'
    """
    if preset not in PRESETS:
        raise ValueError(f"TemporalModel: preset must be one of {', '.join(PRESETS)}: got {preset!r}")
    known = Options.__dataclass_fields__
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ValueError(f"TemporalModel has no option {unknown[0]!r}; known: {', '.join(known)}")
    mode = given.get("mode", "parallel")
    for name in ("gamma", "beta", "prediction"):
        if name in given and mode != "pres":
            reason = ": in it every event sees current memory, which needs no prediction" if mode == "exact" else ""
            raise ValueError(f"TemporalModel: {name} belongs to mode 'pres' and does not fit mode {mode!r}{reason}")
    return Options(**{**PRESETS[preset], **given})
