"""SIGINT and SIGTERM as a request to stop: the first is noted, the second ends the process at once."""

import os
import signal
import threading
from types import FrameType


class Stopped(Exception):  # noqa: N818 - it is no error
    """A run was asked to stop, and has. `code` is the exit code that shells give the signal."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class StopRequest:
    """`code` is 128 + the first signal's number, 0 before it.

    Handles signals from `install` to `restore`, in the main thread only: elsewhere Python has no say in them.
    """

    def __init__(self) -> None:
        self.code = 0
        self._before: dict[int, object] = {}

    def asked(self) -> bool:
        return self.code > 0

    def install(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore(self) -> None:
        for number, handler in self._before.items():
            # None: set by C code, which Python cannot put back
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.code:
            os._exit(128 + number)
        self.code = 128 + number
