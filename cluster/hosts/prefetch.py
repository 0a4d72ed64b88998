"""Reading ahead: what the next row is computed from is read while the present row is computed.

One thread reads, in the order in which it was asked to, so what is read need not be thread-safe. At most one result is held
ahead. What reading raises is raised to who takes that result, and to nobody if it is never taken.
"""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Prefetch(Generic[K, V]):
    """`job(key)` returns what reads the key; it is called in the caller's thread, what it returns in the reading one.

    Without `ahead` there is no such thread: everything is read by the caller, when it is taken.
    """

    def __init__(self, job: Callable[[K], Callable[[], V]], *, ahead: bool) -> None:
        self._job = job
        self._reads: dict[K, Future[V]] = {}
        self._thread = Reader() if ahead else None

    def take(self, key: K, coming: K | None) -> V:
        """What is read for a key; `coming` is read next, and nothing else is kept."""
        if self._thread is None:
            return self._job(key)()
        self.forget(lambda other: other not in (key, coming))
        for wanted in (key, coming):
            if wanted is not None and wanted not in self._reads:
                self._reads[wanted] = self._thread.submit(self._job(wanted))
        return self._reads.pop(key).result()

    def forget(self, stale: Callable[[K], bool]) -> None:
        """Drop what was read, or is about to be, for keys that nobody will take."""
        for key in [key for key in self._reads if stale(key)]:
            self._reads.pop(key).cancel()

    def close(self) -> None:
        """Forget everything and let the thread end."""
        self.forget(lambda key: True)
        if self._thread is not None:
            self._thread.close()


class Reader:
    """A thread that does actions one by one. A daemon: an action that hangs does not keep the process from ending."""

    def __init__(self) -> None:
        self._actions: queue.SimpleQueue[tuple[Future[Any], Callable[[], object]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="reading", daemon=True).start()

    def submit(self, action: Callable[[], V]) -> "Future[V]":
        future: Future[V] = Future()
        self._actions.put((future, action))
        return future

    def close(self) -> None:
        """End after the actions submitted so far."""
        self._actions.put(None)

    def _run(self) -> None:
        while (submitted := self._actions.get()) is not None:
            future, action = submitted
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(action())
                except BaseException as error:  # told to who takes the result
                    future.set_exception(error)
            # Waiting for the next action must not keep the last result alive.
            del submitted, future, action
