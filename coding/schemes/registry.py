"""The list of schemes, and their one-line specifications: `parse("msgc:1,2,27", n=256)` and back."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from typing import Any

from distseq.coding.schemes.backup_tasks import Backup
from distseq.coding.schemes.gradient_coding import GC
from distseq.coding.schemes.ksync import KSync
from distseq.coding.schemes.m_sgc import MSGC
from distseq.coding.schemes.redispatch import Redispatch
from distseq.coding.schemes.scheme import Scheme
from distseq.coding.schemes.sr_sgc import SRSGC


@dataclass(frozen=True)
class Entry:
    """A scheme's class and the names of its positional parameters in a specification."""

    build: Callable[..., Scheme]
    positional: tuple[str, ...]
    example: str


SCHEMES: dict[str, Entry] = {
    "uncoded": Entry(lambda n: GC(n, 0), (), "uncoded"),
    "gc": Entry(GC, ("s",), "gc:3,q=4,code=cyclic"),
    "srsgc": Entry(SRSGC, ("B", "W", "lam"), "srsgc:2,3,23"),
    "msgc": Entry(MSGC, ("B", "W", "lam"), "msgc:1,2,27"),
    "redispatch": Entry(Redispatch, ("T",), "redispatch:1,copies=3"),
    "backup": Entry(Backup, ("percent",), "backup:90"),
    "ksync": Entry(KSync, ("K",), "ksync:240"),
}


def parse(spec: str, n: int) -> Scheme:
    """The scheme of a specification `NAME[:VALUE,...[,KEY=VALUE,...]]` on n workers; `parse(scheme.spec, n) == scheme`.

    ValueError naming the rule and the value for an unknown name, a wrong number of values or parameters out of range.
    """
    name = spec.strip().partition(":")[0]
    if name not in SCHEMES:
        raise ValueError(f"unknown scheme {name!r}; known: {', '.join(e.example for e in SCHEMES.values())}")
    entry = SCHEMES[name]
    return entry.build(n=n, **arguments(spec, entry.positional, _options(entry), entry.example))


def arguments(spec: str, positional: Collection[str], allowed: Collection[str], example: str) -> dict[str, Any]:
    """What a specification says, by the names of its values and options. ValueError as `parse`."""
    name, _, rest = spec.strip().partition(":")
    words = [word.strip() for word in rest.split(",")] if rest else []
    values = [word for word in words if "=" not in word]
    options = [word.split("=", 1) for word in words if "=" in word]
    named = dict(options)
    if len(named) < len(options):
        raise ValueError(f"scheme {spec!r}: an option is given twice")
    if len(values) != len(positional):
        wanted = ",".join(positional) or "no values"
        raise ValueError(f"scheme {spec!r}: {name} takes {wanted}, as in {example!r}")
    for key in named:
        if key not in allowed:
            raise ValueError(f"scheme {spec!r}: {name} has no option {key!r}; known: {', '.join(allowed) or 'none'}")
    own: dict[str, Any] = {key: _integer(spec, v) for key, v in zip(positional, values, strict=True)}
    return own | {key: v if key == "code" else _integer(spec, v) for key, v in named.items()}


def _options(entry: Entry) -> tuple[str, ...]:
    if not isinstance(entry.build, type):
        return ()
    return tuple(f.name for f in fields(entry.build) if f.name != "n" and f.name not in entry.positional)


def _integer(spec: str, word: str) -> int:
    try:
        return int(word)
    except ValueError:
        raise ValueError(f"scheme {spec!r}: {word!r} is not a whole number") from None
