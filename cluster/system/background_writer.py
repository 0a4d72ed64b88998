"""A background thread that runs slow writes in order and returns their errors to the caller."""

import queue
import threading
from collections.abc import Callable


class Writer:
    """Runs actions on one thread. What an action raises is returned, once, by the next `submit`, `flush` or `close`."""

    def __init__(self) -> None:
        # One action may wait behind the running one, then `submit` blocks: a run that checkpoints faster than its disk writes
        # slows down instead of filling the memory with checkpoints, and loses a bounded number of jobs (docs/decisions/008).
        self._actions: queue.Queue[Callable[[], object] | None] = queue.Queue(maxsize=1)
        self._errors: queue.SimpleQueue[BaseException] = queue.SimpleQueue()
        # A daemon, so that a disk that hangs does not keep a process alive that was told to end.
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            action = self._actions.get()
            try:
                if action is None:
                    return
                action()
            # The thread must go on to write the next checkpoint; what to do about the error is decided in the caller's thread.
            except BaseException as error:
                self._errors.put(error)
            finally:
                self._actions.task_done()

    def submit(self, action: Callable[[], object]) -> list[BaseException]:
        self._actions.put(action)
        return self._failed()

    def flush(self) -> list[BaseException]:
        """Wait until every action is done."""
        self._actions.join()
        return self._failed()

    def close(self) -> list[BaseException]:
        """Finish all actions and end the thread; may be called twice."""
        if self._thread.is_alive():
            self._actions.put(None)
            self._thread.join()
        return self._failed()

    def _failed(self) -> list[BaseException]:
        errors = []
        while not self._errors.empty():
            errors.append(self._errors.get())
        return errors
