"""Runs the worker loop on a thread of a host process or actor, and batches its answers."""

import queue
import threading
import time
from collections.abc import Sequence

from distseq.cluster.hosts.messages import Answer, Command, Failure
from distseq.cluster.hosts.worker import WorkerLoop
from distseq.cluster.work import WorkSpec

# Seconds between two batches of answers. An actor call costs about half a millisecond on the driver (docs/decisions/005), so
# one call per row would be its bottleneck at 64 workers; 10 ms is lost in start-ups of some 100 ms.
FLUSH = 0.01
# Seconds after which an idle host sends an empty batch: a sign of life, well within host_pool.SILENT.
IDLE = 1.0


class HostLoop:
    """A worker loop on its own thread. Call `gather` from one thread only; `post` may be called from any."""

    def __init__(self, spec: WorkSpec) -> None:
        self._answers: queue.SimpleQueue[Answer | Failure] = queue.SimpleQueue()
        # Set once loading is over, in either way: waiting for it must end, or a broken Work would look like a slow one.
        self._loaded = threading.Event()
        self._loop = WorkerLoop(spec, self._emit)
        self._flushed = 0.0
        threading.Thread(target=self._loop.run, args=(self._loaded.set,), daemon=True).start()

    def _emit(self, answer: Answer | Failure) -> None:
        self._answers.put(answer)
        # A Work that cannot be loaded never calls `loaded`: without this its host would stay silent instead of saying why.
        if isinstance(answer, Failure):
            self._loaded.set()

    def wait_loaded(self) -> None:
        """Block until the Work is loaded, or has failed to load."""
        self._loaded.wait()

    def post(self, commands: Sequence[Command]) -> None:
        for command in commands:
            self._loop.post(command)

    def gather(self) -> list[Answer | Failure]:
        """All answers so far, at most once per FLUSH seconds. Blocks until there is one, for at most IDLE seconds."""
        try:
            gathered = [self._answers.get(timeout=IDLE)]
        except queue.Empty:
            return []
        # The first answer after a pause leaves at once; only a host that answered within FLUSH waits for more.
        time.sleep(max(0.0, self._flushed + FLUSH - time.monotonic()))
        while not self._answers.empty():
            gathered.append(self._answers.get())
        self._flushed = time.monotonic()
        return gathered
