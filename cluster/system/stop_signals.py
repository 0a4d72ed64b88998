"""Turns SIGINT and SIGTERM into a request to stop; a second signal ends the process at once."""

import os
import signal
import threading
from types import FrameType


class Stopped(Exception):  # noqa: N818 - it is no error
    """A run has stopped on request, with a checkpoint to resume from. `code` is the exit code that shells use for the signal.

    >>> try:
    ...     raise Stopped("stopped after 3 of 9 jobs", 130)  # as distseq.train does after Ctrl-C
    ... except Stopped as stop:
    ...     print(stop, stop.code)
    stopped after 3 of 9 jobs 130
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class StopRequest:
    """`code` is 128 + the number of the first signal, 0 until there is one.

    Handles signals between `install` and `restore`. In other threads than the main one both do nothing.
    """

    def __init__(self) -> None:
        self.code = 0
        self._before: dict[int, object] = {}

    def asked(self) -> bool:
        return self.code > 0

    def install(self) -> None:
        # Python allows signal handlers to be set in the main thread only; `train` may be called in another one.
        if threading.current_thread() is threading.main_thread():
            # Both signals: Ctrl-C at a terminal, SIGTERM from Ray's `job stop` and from schedulers of batch jobs.
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore(self) -> None:
        for number, handler in self._before.items():
            # None stands for a handler set by C code, which Python cannot restore.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        # A user who insists wants no clean-up: sys.exit would wait for threads and exit handlers, which may be what hangs.
        if self.code:
            os._exit(128 + number)
        self.code = 128 + number
