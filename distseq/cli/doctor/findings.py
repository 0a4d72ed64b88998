"""The findings of `distseq doctor`, the state that its checks share, and the loop that runs them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


class Finding(NamedTuple):
    """One line of the doctor's report: what was checked, the level (ok, warning or error), and the finding with advice."""

    about: str
    level: str
    text: str


class UnknownError(Exception):
    """A check cannot say anything, because what it needs is missing; another check has reported that."""


@dataclass
class Subject:
    """What is examined, and what checks have found out about it so far."""

    config: Path | None = None
    address: str | None = None
    python: str = "python"  # the interpreter on the cluster
    token_file: Path | None = None
    insecure: bool = False  # accept a cluster without authentication
    _known: dict[str, Any] = field(default_factory=dict)

    def once(self, name: str, make: Callable[[], T]) -> T:
        """The result of `make`, computed once. If it raises, the first caller gets its error and all others UnknownError."""
        # So that a broken config file is reported by one check, and not by all that need it.
        if name not in self._known:
            # Set before `make` runs, so that it stays when that raises.
            self._known[name] = UnknownError(name)
            self._known[name] = make()
        found: T = self._known[name]
        if isinstance(found, UnknownError):
            raise found
        return found


Check = Callable[[Subject], Iterable[Finding]]


def examine(checks: Sequence[tuple[str, Check]], subject: Subject) -> Iterator[Finding]:
    """Yields the findings of all checks, in order; an exception is a finding too, and stops no other check."""
    for about, check in checks:
        try:
            yield from check(subject)
        except UnknownError:
            continue
        except Exception as error:  # whatever a broken installation or a user's model raises is a finding
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            # A ValueError of ours says everything; the kind of any other error is half of its meaning.
            yield Finding(about, "error", f"{kind}{' '.join(str(error).split())}")


def count(number: int, noun: str) -> str:
    """A number with its noun: "1 node", "2 nodes"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def ok(about: str, text: str) -> list[Finding]:
    return [Finding(about, "ok", text)]


def warning(about: str, text: str) -> list[Finding]:
    return [Finding(about, "warning", text)]


def error(about: str, text: str) -> list[Finding]:
    return [Finding(about, "error", text)]
