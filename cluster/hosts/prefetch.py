"""Prefetching: reads the inputs of the next row while the current one is computed.

A single thread reads, in the order of requests, so data sets need not be thread-safe. At most one result is held in advance.
An exception raised while reading is raised again by the `take` of that result; if it is never taken, nobody sees it.
"""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Prefetch(Generic[K, V]):
    """`reader(key)` is called in the caller's thread and returns a function that reads the key in the reading thread.

    Without `ahead` there is no such thread: the caller reads everything itself, when it takes it.
    """

    def __init__(self, reader: Callable[[K], Callable[[], V]], *, ahead: bool) -> None:
        self._reader = reader
        self._reads: dict[K, Future[V]] = {}
        self._thread = Reader() if ahead else None

    def take(self, key: K, coming: K | None) -> V:
        """The result for a key. Reading of `coming` starts, and results of all other keys are dropped."""
        if self._thread is None:
            return self._reader(key)()
        # Before new reads are queued: a read that was guessed wrong must not delay the one that is waited for.
        self.forget(lambda other: other not in (key, coming))
        for wanted in (key, coming):
            if wanted is not None and wanted not in self._reads:
                self._reads[wanted] = self._thread.submit(self._reader(wanted))
        return self._reads.pop(key).result()

    def forget(self, stale: Callable[[K], bool]) -> None:
        """Drop results and pending reads of keys that nobody will take."""
        for key in [key for key in self._reads if stale(key)]:
            self._reads.pop(key).cancel()

    def close(self) -> None:
        """Forget everything and let the thread end."""
        self.forget(lambda key: True)
        if self._thread is not None:
            self._thread.close()


class Reader:
    """A thread that runs actions one by one. It is a daemon: an action that hangs does not keep the process from ending."""

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
            # Cancelled meanwhile by `forget`: reading it would only delay the next one.
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(action())
                # Users' code may raise anything, and this thread must survive it: the caller of `take` gets the exception.
                except BaseException as error:
                    future.set_exception(error)
            # Otherwise the last result, perhaps a large batch, would stay alive while the thread waits for the next action.
            del submitted, future, action
