"""Turns SIGINT, SIGTERM and SIGHUP into a request to stop in order; a second signal ends the run at once."""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

# Ctrl-C at a terminal; Ray's `job stop` and batch schedulers; a terminal that was closed.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """A run has stopped on request, with a checkpoint to resume from. `code` is the exit code that shells use for the signal.

    A KeyboardInterrupt, which `except Exception` does not catch: a script that trains one run after another ends, too.

    >>> try:
    ...     raise Stopped("stopped after 3 of 9 jobs", 130)  # as distseq.train does after Ctrl-C
    ... except Stopped as stop:
    ...     print(stop, stop.code)
    stopped after 3 of 9 jobs 130
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class _Process:
    """What a second signal does to this process."""

    ours = False


def end_at_second_signal() -> None:
    """Makes a second signal end this process at once; without it, KeyboardInterrupt is raised.

    For programs that do nothing but train. A notebook or a user's script has other things to lose.
    """
    _Process.ours = True


class StopRequest:
    """`code` is 128 + the number of the first signal, 0 until there is one.

    noted: called by the handler of the first signal.

    Handles signals between `install` and `restore`. In other threads than the main one both do nothing.
    """

    def __init__(self, noted: Callable[[], object] = lambda: None) -> None:
        self.code = 0
        self._noted = noted
        self._before: dict[int, object] = {}

    def asked(self) -> bool:
        return self.code > 0

    def install(self, *, at_once: bool = False) -> None:
        """Notes the first signal from now on; with `at_once` it raises KeyboardInterrupt, too. May be called again."""
        # Python allows signal handlers to be set in the main thread only; `train` may be called in another one.
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            # Who started this process with nohup wants it to survive its terminal. A shell that starts it in the background
            # ignores SIGINT for it, which says nothing about a SIGINT that is sent on purpose.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                before = signal.signal(number, self._interrupt if at_once else self._note)
                # Called again, it finds handlers of its own, or those of a library that was started in between.
                self._before.setdefault(number, before)

    def restore(self) -> None:
        for number, handler in self._before.items():
            # None stands for a handler set by C code, which Python cannot restore.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # type: ignore[arg-type]
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.code:
            # A user who insists wants no clean-up: sys.exit would wait for threads and exit handlers, which may be what hangs.
            if _Process.ours:
                os._exit(128 + number)
            raise KeyboardInterrupt
        self.code = 128 + number
        self._noted()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._note(number, frame)
        raise KeyboardInterrupt
