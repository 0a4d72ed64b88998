"""The inside of a host process or actor: the worker loop on a thread, and what it has to say, gathered."""

import queue
import threading
import time
from collections.abc import Sequence

from distseq.cluster.hosts.messages import Answer, Command, Failure
from distseq.cluster.hosts.worker import WorkerLoop
from distseq.cluster.work import WorkSpec

FLUSH = 0.01  # seconds between two answers of a host
IDLE = 1.0  # seconds after which a host with nothing to say answers all the same


class HostLoop:
    """A worker loop that runs by itself. `gather` may be called from one thread, `post` from any."""

    def __init__(self, spec: WorkSpec) -> None:
        self._answers: queue.SimpleQueue[Answer | Failure] = queue.SimpleQueue()
        self._loaded = threading.Event()
        self._loop = WorkerLoop(spec, self._emit)
        self._flushed = 0.0
        threading.Thread(target=self._loop.run, args=(self._loaded.set,), daemon=True).start()

    def _emit(self, answer: Answer | Failure) -> None:
        self._answers.put(answer)
        if isinstance(answer, Failure):
            self._loaded.set()

    def wait_loaded(self) -> None:
        """Until the Work is loaded, or has failed to."""
        self._loaded.wait()

    def post(self, commands: Sequence[Command]) -> None:
        for command in commands:
            self._loop.post(command)

    def gather(self) -> list[Answer | Failure]:
        """Block until there is something to say, or IDLE seconds; then all there is, at most once per FLUSH seconds."""
        try:
            gathered = [self._answers.get(timeout=IDLE)]
        except queue.Empty:
            return []
        time.sleep(max(0.0, self._flushed + FLUSH - time.monotonic()))
        while not self._answers.empty():
            gathered.append(self._answers.get())
        self._flushed = time.monotonic()
        return gathered
