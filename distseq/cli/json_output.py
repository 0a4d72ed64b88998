"""With --json, standard output holds the JSON and nothing else, whatever a model, a data set or a library prints."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from io import UnsupportedOperation


@contextmanager
def only_json(asked: bool) -> Iterator[Callable[[str], None]]:
    """Yields a function that writes a line to standard output; with `asked`, all else goes to standard error.

    Also what libraries write to the file descriptor itself, and processes that are started meanwhile.
    """
    out = sys.stdout

    def write(line: str) -> None:
        print(line, file=out, flush=True)

    if not asked:
        yield write
        return
    lines: list[str] = []
    with redirect_stdout(sys.stderr), _descriptor_redirected(out):
        yield lines.append
    for line in lines:
        write(line)


@contextmanager
def _descriptor_redirected(out: object) -> Iterator[None]:
    try:
        one, two = out.fileno(), sys.stderr.fileno()  # type: ignore[attr-defined]
    except (AttributeError, UnsupportedOperation, ValueError):
        # No files: a program that has replaced them captures what is printed.
        yield
        return
    out.flush()  # type: ignore[attr-defined]
    kept = os.dup(one)
    try:
        os.dup2(two, one)
        yield
    finally:
        # What C libraries have buffered is theirs to write; Python's buffers are empty.
        with suppress(OSError):
            sys.stderr.flush()
        os.dup2(kept, one)
        os.close(kept)


class JsonLog:
    """Takes the output of a job, in pieces: its last line that is a JSON object goes to standard output, the rest to stderr.

    Ray keeps one log of a job, of what it writes to both.
    """

    def __init__(self) -> None:
        self._rest = ""  # of a line that is not complete
        self._held = ""  # the latest JSON object

    def write(self, text: str) -> None:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._line(line)

    def _line(self, line: str) -> None:
        if not _is_object(line):
            print(line, file=sys.stderr)
            return
        if self._held:
            print(self._held, file=sys.stderr)
        self._held = line

    def close(self) -> None:
        """Call it once the job has ended."""
        if self._rest:
            self._line(self._rest)
        if self._held:
            print(self._held, flush=True)


def _is_object(line: str) -> bool:
    if not line.startswith("{"):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def silence_output() -> None:
    """Sends what is still written to standard output, by exit handlers, to standard error."""
    with suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
