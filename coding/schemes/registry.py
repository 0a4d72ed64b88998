"""Lists all schemes, and converts them from and to specifications: `parse("msgc:1,2,27", n=256)`."""

from collections.abc import Callable
from dataclasses import dataclass

from distseq.coding.schemes.backup_tasks import Backup
from distseq.coding.schemes.custom import custom_scheme, import_string_of
from distseq.coding.schemes.gradient_coding import GC
from distseq.coding.schemes.ksync import KSync
from distseq.coding.schemes.m_sgc import MSGC
from distseq.coding.schemes.redispatch import Redispatch
from distseq.coding.schemes.scheme import Scheme
from distseq.coding.schemes.specification import from_words
from distseq.coding.schemes.sr_sgc import SRSGC


@dataclass(frozen=True)
class Entry:
    """A scheme's class and an example of its specification."""

    build: Callable[..., Scheme]
    example: str


SCHEMES: dict[str, Entry] = {
    # A name of its own for what everybody compares with; the specification of GC(n, 0) is "uncoded" too.
    "uncoded": Entry(lambda n: GC(n, 0), "uncoded"),
    "gc": Entry(GC, "gc:3,q=4,code=cyclic"),
    "srsgc": Entry(SRSGC, "srsgc:2,3,23"),
    "msgc": Entry(MSGC, "msgc:1,2,27"),
    "redispatch": Entry(Redispatch, "redispatch:1,copies=3"),
    "backup": Entry(Backup, "backup:90"),
    "ksync": Entry(KSync, "ksync:240"),
}


def parse(spec: str, n: int) -> Scheme:
    """The scheme that a specification names, on n workers; `parse(scheme.spec, n) == scheme`.

    A specification is `NAME[:VALUE,...[,KEY=VALUE,...]]` with a name of SCHEMES, or `module:Class[:VALUE,...[,KEY=VALUE,...]]`
    for a subclass of Scheme in a module that this process and every host can import. ValueError, naming rule and value, for an
    unknown name, a wrong number of values, or parameters out of range.

    >>> parse("gc:3,code=cyclic", n=8)
    GC(n=8, s=3, q=1, code='cyclic')
    """
    name = spec.strip().partition(":")[0]
    if name in SCHEMES:
        return from_words(SCHEMES[name].build, spec, name, SCHEMES[name].example, n=n)
    if import_string_of(spec) is not None:
        return custom_scheme(spec, n)
    known = ", ".join(entry.example for entry in SCHEMES.values())
    raise ValueError(f"unknown scheme {name!r}; known: {known}, and module:Class of your own")


def own_class(spec: str) -> str | None:
    """The module:Class of a user's own that a specification names; None where it names one of SCHEMES, or nothing."""
    return None if spec.strip().partition(":")[0] in SCHEMES else import_string_of(spec)


def family_of(spec: str) -> str:
    """The name in a specification: of SCHEMES, or module:Class."""
    return own_class(spec) or spec.strip().partition(":")[0]
