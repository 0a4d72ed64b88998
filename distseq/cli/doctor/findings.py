"""What a check finds, how checks are run, and what they share."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


class Finding(NamedTuple):
    """A line: what was looked at, how bad it is (ok, warning or error), what was found and what to do."""

    about: str
    level: str
    text: str


class UnknownError(Exception):
    """A check has nothing to say, because what it looks at is missing, which another check has reported."""


@dataclass
class Subject:
    """What is examined, and what the checks have learned of it so far."""

    job: Path | None = None
    address: str | None = None
    python: str = "python"  # the interpreter on the cluster
    token_file: Path | None = None
    _known: dict[str, Any] = field(default_factory=dict)

    def once(self, name: str, make: Callable[[], T]) -> T:
        """What `make` gives, made once. When it raises, the first to ask gets its error, all others UnknownError."""
        if name not in self._known:
            self._known[name] = UnknownError(name)
            self._known[name] = make()
        found: T = self._known[name]
        if isinstance(found, UnknownError):
            raise found
        return found


Check = Callable[[Subject], Iterable[Finding]]


def examine(checks: Sequence[tuple[str, Check]], subject: Subject) -> Iterator[Finding]:
    """The findings of all checks, in order; a check that raises has found an error."""
    for about, check in checks:
        try:
            yield from check(subject)
        except UnknownError:
            continue
        except Exception as error:  # whatever a broken installation or a user's model raises is a finding
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            yield Finding(about, "error", f"{kind}{' '.join(str(error).split())}")


def ok(about: str, text: str) -> list[Finding]:
    return [Finding(about, "ok", text)]


def warning(about: str, text: str) -> list[Finding]:
    return [Finding(about, "warning", text)]


def error(about: str, text: str) -> list[Finding]:
    return [Finding(about, "error", text)]
