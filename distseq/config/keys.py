"""The metadata of the config file's keys: meaning, range, and option of `distseq train`."""

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field, fields
from types import NoneType, UnionType
from typing import Any, NamedTuple, get_args, get_origin

LARGEST = 2**63 - 1  # of whole numbers: TOML's
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"  # of a learner: also the name of its weights file


@dataclass(frozen=True)
class Meaning:
    """Describes a key in one place, from which checks, JSON schema, command line and reference are made."""

    description: str
    least: float | None = None
    most: float | None = None  # whole numbers without one end at LARGEST
    above: float | None = None  # the value must be greater
    below: float | None = None
    values: tuple[str, ...] = ()  # all that it may be
    pattern: str = ""  # regular expression of the whole value
    unset: str = ""  # what the default means, where the default itself does not say it
    option: str = ""  # of `distseq train`, and of distseq.train; empty where there is none
    shell: bool = True  # whether the option is on the command line too
    metavar: str | None = None
    schedulers: tuple[str, ...] = ()  # kinds that read it; empty where all do
    pools: tuple[str, ...] = ()
    closings: tuple[str, ...] = ()
    objectives: tuple[str, ...] = ()
    beside: str = ""  # key of the same learner without which it says nothing

    @property
    def readers(self) -> dict[str, tuple[str, ...]]:
        """What must be chosen, and how, for the key to be read: {"scheduler": ("rounds",), "closing": ("mu",)}."""
        kinds = {"scheduler": self.schedulers, "pool": self.pools}
        kinds |= {"closing": self.closings, "objective": self.objectives}
        return {kind: known for kind, known in kinds.items() if known}

    @property
    def users(self) -> list[str]:
        """What reads the key, for readers: ["scheduler: pipeline, auto"]."""
        return [f"{kind}: {', '.join(own)}" for kind, own in self.readers.items()]


class Key(NamedTuple):
    """A key of a table of the config file."""

    name: str
    type: Any
    default: Any  # MISSING where the key must be given
    meaning: Meaning

    @property
    def kind(self) -> type:
        """Its type, without None and without what it holds: int of int | None, dict of dict[str, Any]."""
        origin = get_origin(self.type)
        if origin is UnionType:
            return next(one for one in get_args(self.type) if one is not NoneType)
        return origin or self.type

    @property
    def default_text(self) -> str:
        """The default for readers; empty where the key must be given, or where the default says nothing."""
        if self.meaning.unset or isinstance(self.default, bool):
            return self.meaning.unset
        return "" if self.default in (MISSING, None, "", {}, []) else str(self.default)


def noted(description: str, notes: list[str], default: str) -> str:
    """A description with notes and a default behind it, as click shows them: "Number of parts.  [scheduler: pipeline]"."""
    notes = [*notes, *([f"default: {default}"] if default else [])]
    return description + (f"  [{'; '.join(notes)}]" if notes else "")


def key(default: Any = MISSING, *, description: str, **more: Any) -> Any:
    """A dataclass field of the schema; `default` is a value, or `dict` or `list` for a new one each time.

    `more` are the other fields of Meaning.

    Example: steps: int = key(100, description="Training steps of each learner.", least=1)
    """
    metadata = {"meaning": Meaning(description, **more)}
    if default in (dict, list):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def keys(table: type) -> Iterator[Key]:
    """The keys of a table, which is a dataclass of the schema, in their order."""
    for one in fields(table):
        # A default that is a dict or a list must be a new one each time, or configurations would share it.
        made = one.default if one.default_factory is MISSING else one.default_factory()
        yield Key(one.name, one.type, made, one.metadata["meaning"])
