"""Slow writing that nobody waits for: one thread does what it is given, in order, and keeps what went wrong."""

import queue
import threading
from collections.abc import Callable


class Writer:
    """At most one action waits behind the one under way: a caller that is faster than the disk is held up.

    What an action raises is returned by the next `submit` or `flush`, once.
    """

    def __init__(self) -> None:
        self._actions: queue.Queue[Callable[[], object] | None] = queue.Queue(maxsize=1)
        self._errors: queue.SimpleQueue[BaseException] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            action = self._actions.get()
            try:
                if action is None:
                    return
                action()
            except BaseException as error:  # reported to the caller, whose thread decides
                self._errors.put(error)
            finally:
                self._actions.task_done()

    def submit(self, action: Callable[[], object]) -> list[BaseException]:
        self._actions.put(action)
        return self._failed()

    def flush(self) -> list[BaseException]:
        """Wait until everything is done."""
        self._actions.join()
        return self._failed()

    def close(self) -> list[BaseException]:
        """Finish what was submitted and end the thread; may be called twice."""
        if self._thread.is_alive():
            self._actions.put(None)
            self._thread.join()
        return self._failed()

    def _failed(self) -> list[BaseException]:
        errors = []
        while not self._errors.empty():
            errors.append(self._errors.get())
        return errors
