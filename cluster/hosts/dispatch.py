"""Sends mini-tasks to the hosts of their workers, and notes them as owed."""

from collections import defaultdict
from collections.abc import Mapping

from distseq.cluster.hosts.job_table import Attempt, JobTable, Owed
from distseq.cluster.hosts.message_timing import MessageTimer
from distseq.cluster.hosts.messages import Assign, Cancel, Command
from distseq.cluster.hosts.placement import HostSlot, Placement
from distseq.cluster.hosts.transport import Transport
from distseq.cluster.trace import Trace
from distseq.coding.plan import MiniTask


class Dispatch:
    """`delays` is injected: a worker's k-th message first sleeps its start-up."""

    def __init__(
        self, transport: Transport, placement: Placement, jobs: JobTable, timer: MessageTimer, delays: Trace | None
    ) -> None:
        self._transport, self._placement, self._jobs, self._timer = transport, placement, jobs, timer
        self._delays = delays
        self._invocations: defaultdict[int, int] = defaultdict(int)  # worker -> messages that it was sent

    def send(self, attempts: Mapping[MiniTask, Attempt], now: float, listened: float) -> None:
        """Send mini-tasks, those of one worker in one message. `now`: pool time; `listened`: seconds, as in Owed."""
        messages: dict[int, list[MiniTask]] = {}
        for task in attempts:
            messages.setdefault(task.worker, []).append(task)
        posts: dict[HostSlot, list[Command]] = {}
        for worker, own in messages.items():
            slot = self._placement.home(worker)
            message = self._message(worker, own, max(attempts[task].number for task in own))
            for task in own:
                self._jobs[task.job].owed[task] = Owed(attempts[task], slot, message.invocation, listened)
            self._timer.sent(worker, message.invocation, slot.name, now)
            posts.setdefault(slot, []).append(message)
        for slot, commands in posts.items():
            self.post(slot, commands)

    def _message(self, worker: int, tasks: list[MiniTask], attempt: int) -> Assign:
        invocation = self._invocations[worker]
        self._invocations[worker] += 1
        delays = self._delays
        startup = 0.0 if delays is None else max(0.0, delays.startup(invocation, worker % delays.workers))
        announced = any(self._jobs[task.job].suspected for task in tasks)
        return Assign(worker, tuple(tasks), attempt, invocation, startup, announced)

    def cancel(self, owed: Mapping[MiniTask, Owed]) -> None:
        """Cancel mini-tasks at the hosts that they were sent to."""
        cancelled: dict[HostSlot, list[MiniTask]] = {}
        for task, one in owed.items():
            cancelled.setdefault(one.slot, []).append(task)
        for slot, own in cancelled.items():
            self.post(slot, [Cancel(tuple(own))])

    def post(self, slot: HostSlot, commands: list[Command]) -> None:
        mentioned = {task.job for command in commands if isinstance(command, Assign) for task in command.tasks}
        # A payload goes along with the first mini-task of its job: hosts that get none need not hold the parameters.
        fresh = mentioned - slot.known_jobs
        slot.known_jobs |= fresh
        self._transport.post(slot.handle, commands, {job: self._jobs[job].shared for job in sorted(fresh)})
