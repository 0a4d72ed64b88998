"""Runs the worker loop on a thread of a host process or actor, and batches what it reports."""

import queue
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from distseq.cluster.hosts.messages import Answer, Command, Failure, Progress, Report
from distseq.cluster.hosts.worker import WorkerLoop
from distseq.cluster.work import WorkSpec
from distseq.coding.plan import MiniTask

# Seconds between two batches of answers while more are coming. An actor call costs about half a millisecond on the driver
# (docs/decisions/005), so one call per row would be its bottleneck at 64 workers.
FLUSH = 0.01
# Seconds after which a host that has no answer sends a sign of life, well within host_pool.SILENT.
IDLE = 1.0
# Seconds that an announced mini-task waits until the driver has been told of it. A driver may be stopped, or busy with an
# optimizer step: then the mini-task begins all the same, and if it kills this process the driver guesses.
ANNOUNCED = 5.0


class HostLoop:
    """A worker loop on its own thread. Call `gather` from one thread only; `post` may be called from any."""

    def __init__(self, spec: WorkSpec) -> None:
        # None: no more answers are coming for now.
        self._reports: queue.SimpleQueue[Answer | Progress | Failure | None] = queue.SimpleQueue()
        # Set once loading is over, in either way: waiting for it must end, or a broken Work would look like a slow one.
        self._loaded = threading.Event()
        self._loop = WorkerLoop(spec, self._emit, self._announce, self._pausing)
        self._unsent = False  # since the last None
        self._announcing = False  # the last batch had an announcement
        self._handed_over = threading.Event()
        self._flushed = 0.0
        self._begun, self._ticked, self._seconds = -1.0, 0.0, 0.0  # of what is in hand, by signs of life
        threading.Thread(target=self._loop.run, args=(self._loaded.set,), daemon=True).start()

    def _emit(self, report: Report) -> None:
        self._unsent = True
        self._reports.put(report)
        # A Work that cannot be loaded never calls `loaded`: without this its host would stay silent instead of saying why.
        if isinstance(report, Failure):
            self._loaded.set()

    def _pausing(self) -> None:
        if self._unsent:
            self._unsent = False
            self._reports.put(None)

    def _announce(self, task: MiniTask) -> None:
        self._handed_over.clear()
        self._emit(Progress((task,), 0.0))
        self._pausing()
        self._handed_over.wait(ANNOUNCED)

    def wait_loaded(self) -> None:
        """Block until the Work is loaded, or has failed to load."""
        self._loaded.wait()

    def post(self, commands: Sequence[Command]) -> None:
        self._loop.post(*commands)

    def gather(self) -> list[Report]:
        """Answers, those of at most FLUSH seconds while more are coming. Without any for IDLE seconds, a sign of life."""
        # Whoever asks for the next batch has passed the last one on.
        if self._announcing:
            self._handed_over.set()
        gathered = self._await_first()
        self._announcing = any(isinstance(report, Progress) for report in gathered)
        if not gathered:
            return [self._progress()]
        # The first answer after a pause leaves at once; only a host that answered within FLUSH waits for more.
        end = self._flushed + FLUSH
        while (report := self._next(end)) is not None:
            gathered.append(report)
            self._announcing |= isinstance(report, Progress)
        self._flushed = time.monotonic()
        return gathered

    def _await_first(self) -> list[Report]:
        end = time.monotonic() + IDLE
        while (left := end - time.monotonic()) > 0:
            with suppress(queue.Empty):
                report = self._reports.get(timeout=left)
                # The end of answers that left before it was known that no more were coming.
                if report is not None:
                    return [report]
        return []

    def _next(self, end: float) -> Report | None:
        try:
            return self._reports.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            return None

    def _progress(self) -> Progress:
        now, in_hand = time.monotonic(), self._loop.in_hand
        if in_hand is None:
            return Progress((), 0.0, self._loop.idle)
        if in_hand.begun != self._begun:
            self._begun, self._ticked, self._seconds = in_hand.begun, in_hand.begun, 0.0
        # By signs of life and not by the clock: one that comes late was held up with the whole process.
        self._seconds += min(now - self._ticked, 2 * IDLE)
        self._ticked = now
        return Progress(in_hand.tasks, self._seconds)
