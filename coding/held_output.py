"""Holds back what is written to standard error for a while, so that an error of several lines can be told in one."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO


class Held:
    """A stream that keeps what is written until it is released, and then writes to the stream behind it.

    A log handler that was made meanwhile may keep it for good: everything else is the stream's own.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._kept, self._holds = stream, [""], True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        if not self._holds:
            return self._stream.write(text)
        self._kept.append(text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def drop(self) -> str:
        """What was kept, which is forgotten."""
        text, self._kept = "".join(self._kept), []
        return text

    def release(self) -> None:
        """Writes what was kept and is not dropped."""
        self._holds = False
        text = self.drop()
        if text:
            # A closed standard error is no reason to fail.
            with suppress(OSError, ValueError):
                self._stream.write(text)


@contextmanager
def held_errors() -> Iterator[Held]:
    """Holds sys.stderr back; what is not dropped follows at the end."""
    before = sys.stderr
    held = Held(before)
    sys.stderr = held
    try:
        yield held
    finally:
        # Unless the code in between has set another one.
        if sys.stderr is held:
            sys.stderr = before
        held.release()
