"""Displays and loggers that fail end no run: their errors become one line, or nothing where no line can be written."""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from rich.console import Console

from distseq.cluster.system.output import GONE, discard
from distseq.engine.interfaces import Observer

HOOKS = tuple(name for name in vars(Observer) if not name.startswith("_"))
# Different lines of warning: a logger that fails with the time in its message would fill a log.
MOST = 100


class Warnings:
    """Prints each line once on a console, as a warning."""

    def __init__(self, console: Console) -> None:
        self._console, self._said = console, set[str]()

    def __call__(self, line: str) -> None:
        if line not in self._said and len(self._said) < MOST:
            self._said.add(line)
            text = line if line.startswith("warning: ") else f"warning: {line}"
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class Forgiven(Observer):
    """Tells an observer what it is told itself. What the observer raises is a warning; it is told the next thing all the same.

    KeyboardInterrupt and SystemExit pass: they are meant to end the program.
    """

    def __init__(self, observer: Any, warn: Callable[[str], object]) -> None:
        for name in HOOKS:
            # Watchers need not derive from Observer, nor have all hooks.
            if (hook := getattr(observer, name, None)) is not None:
                setattr(self, name, partial(_tell, hook, f"{type(observer).__name__}.{name}", warn))


def _tell(hook: Callable[..., object], name: str, warn: Callable[[str], object], *what: Any, **more: Any) -> None:
    try:
        hook(*what, **more)
    except Exception as error:  # a logger of the user's own may raise anything
        text = " ".join(str(error).split())[:200]
        warn(f"{name} raised {type(error).__name__}{text and f': {text}'}; training goes on")


class ForgivingFile:
    """A text file in which what cannot be written is left out."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, text: str) -> int:
        try:
            self._file.write(text)
        # A console that cannot show a character.
        except UnicodeEncodeError as error:
            with contextlib.suppress(OSError, ValueError):
                self._file.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
        except (OSError, ValueError, RuntimeError) as error:
            self._failed(error)
        return len(text)

    def flush(self) -> None:
        try:
            self._file.flush()
        except (OSError, ValueError, RuntimeError) as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        # ValueError: it was closed. RuntimeError: a signal's handler prints while the same file is being written.
        if isinstance(error, OSError) and error.errno in GONE:
            discard(self._file)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextlib.contextmanager
def forgiving(console: Console) -> Iterator[Console]:
    """The console, whose failures meanwhile end nothing."""
    # The file given to the console, not `console.file`: None stands for the standard output of the moment.
    before = console._file
    console.file = ForgivingFile(console.file)  # type: ignore[assignment]
    try:
        yield console
    finally:
        console.file = before  # type: ignore[assignment]
