"""Mutants of messages: what hosts report, with fields of other types and sizes, and the bytes between driver and hosts."""

import socket
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from distseq.cluster.errors import FaultError
from distseq.cluster.hosts.host_pool import HostPool
from distseq.cluster.hosts.messages import Answer, Assign, Command, Failure, Progress
from distseq.cluster.hosts.transport import Death, Term, verified
from distseq.cluster.local.channel import HEAD, HEADER, SEAL, Channel, DamagedError, frame
from distseq.cluster.pool import Payload, PoolError
from distseq.cluster.probe import Probe, feature
from distseq.cluster.reduction import digest, sum_in_place
from distseq.coding.plan import MiniTask
from tests.fuzz.harness import Kind
from tests.fuzz.mutations import ODD, nested

IDS = np.arange(20)
TASKS = [MiniTask(0, 0, worker) for worker in range(4)]
WHOLE = b"as they were sent"


@dataclass(eq=False)
class Host:
    """A host that computes at once, and what it has not reported yet."""

    payloads: dict[int, Payload] = field(default_factory=dict)
    reports: list[Any] = field(default_factory=list)
    dead: bool = False


class Mutating:
    """A transport within this process; `change` sees each batch of reports on its way."""

    def __init__(self, change: Callable[[list[Any]], Any]) -> None:
        self._change, self._work = change, Probe(4)

    def room(self) -> int | None:
        return None

    def spawn(self, name: str) -> Host:
        return Host(reports=[Progress((), 0.0, True)])

    def wait_ready(self, handles: Sequence[Host], seconds: float) -> None:
        pass

    def share(self, payload: Payload) -> Payload:
        return payload

    def unshare(self, payload: Payload, shared: Payload) -> None:
        pass

    def post(self, handle: Host, commands: list[Command], shared: Mapping[int, Payload]) -> None:
        handle.payloads |= shared
        for command in commands:
            for task in command.tasks if isinstance(command, Assign) else ():
                payload = handle.payloads[task.job]
                row = self._work.row(payload, *payload.layout.row(task, payload.ids))
                numbers = (payload.version, command.attempt, command.invocation)
                handle.reports.append(Answer(task, *numbers, 0.0, 0.01, row, digest(row)))

    def wait(self, handles: Sequence[Host], seconds: float) -> list[tuple[Host, Any]]:
        found = []
        for handle in handles:
            if handle.reports:
                reports, handle.reports = handle.reports, []
                found.append((handle, self._change(reports)))
        return found

    def stays(self, row: Any) -> bool:
        return False

    def add(self, terms: Sequence[Term], meanwhile: Callable[[], bool]) -> np.ndarray:
        return sum_in_place([(term.weight, verified(term.task, term.row, term.digest)) for term in terms])

    def free(self, handle: Host, rows: Sequence[Any]) -> None:
        pass

    def pid(self, handle: Host) -> int:
        return 0

    def kill(self, handle: Host) -> None:
        handle.dead, handle.reports = True, []

    def close(self) -> None:
        pass


def changed(rng: Random, reports: list[Any]) -> Any:
    """A batch of reports with one thing wrong, or several."""
    reports = list(reports)
    for _ in range(rng.choice([1, 1, 3])):
        at = rng.randrange(len(reports) + 1)
        match rng.randrange(8):
            case 0:
                return rng.choice([*ODD, Death("gone"), tuple(reports), nested(rng, 5)])
            case 1:
                reports.insert(
                    at, rng.choice([*ODD, Failure("x", "", "y"), Progress((), 1e300, True), MiniTask(0, 0, 0)])
                )
            case 2 if reports:
                reports.pop(min(at, len(reports) - 1))
            case 3 if reports:
                reports.insert(at, rng.choice(reports))
            case _ if reports:
                reports[min(at, len(reports) - 1)] = _changed_fields(rng, reports[min(at, len(reports) - 1)])
    return reports


def _changed_fields(rng: Random, report: Any) -> Any:
    if not isinstance(report, tuple) or not report:
        return rng.choice(ODD)
    place = rng.randrange(len(report))
    value = report[place]
    odd = rng.choice(
        [*ODD, float("inf"), -1.0, np.float32(1), np.zeros(3), MiniTask(0, 0, 10**9), MiniTask(-1, "0", 0), (TASKS[0],)]
    )
    if isinstance(value, tuple) and value and rng.random() < 0.7:
        odd = _changed_fields(rng, value)
    elif isinstance(value, np.ndarray) and rng.random() < 0.7:
        odd = rng.choice(
            [value[:2], value.astype(np.float64), value + 1, value.astype(object), value.reshape(1, -1), value.tolist()]
        )
    elif isinstance(value, int) and rng.random() < 0.5:
        odd = value + rng.choice([1, -1, 10**6])
    fields = [*report[:place], odd, *report[place + 1 :]]
    return type(report)._make(fields) if hasattr(report, "_make") else tuple(fields)


def _run(path: Path) -> None:
    """One job over a transport whose reports are changed as the file's content says."""
    content = path.read_bytes()
    rng = Random(content)
    left = [0 if content == WHOLE else rng.choice([1, 1, 2, 20])]

    def change(reports: list[Any]) -> Any:
        if not left[0] or rng.random() < 0.3:
            return reports
        left[0] -= 1
        return changed(rng, reports)

    pool = HostPool(4, Mutating(change), 2)
    try:
        pool.publish(0, Payload(0, 0, 0, np.zeros(0), IDS, 0, "uncoded", 4))
        pool.send(TASKS)
        came: set[MiniTask] = set()
        for _ in range(12):
            came |= {
                delivery.task for delivery in pool.poll(pool.now()) if not delivery.stale and delivery.fault is None
            }
            if came >= set(TASKS):
                total = pool.collect(0, dict.fromkeys(TASKS, 1.0))
                assert content != WHOLE or (total == feature(IDS, 4).sum(0)).all()
                assert total.dtype == np.float64
                break
        pool.retire(0)
    except FaultError as error:
        raise PoolError(str(error)) from None
    finally:
        pool.close()


REPORTS = Kind(
    "reports", "seed", lambda: [WHOLE], _run, refusals=(PoolError,), own=(lambda rng, seeds: rng.randbytes(8),)
)


SENT: list[Any] = [
    Progress((), 0.0, True),
    [Answer(task, 1, 1, 0, 0.0, 0.5, None, 7) for task in TASKS],
    {"parameters": "x" * 300},
]


def _resealed(rng: Random, seeds: Sequence[bytes]) -> bytes:
    """A header that says something else, with a checksum that is right."""
    content = rng.choice(seeds)
    size, count, crc = HEADER.unpack_from(content)
    size, count = rng.choice(
        [(size, count), (size + 1, count), (2**63, 0), (0, 0), (size, 1), (size, 2**32 - 1), (size - 1, 0)]
    )
    header = HEADER.pack(size, count, crc)
    return header + SEAL.pack(zlib.crc32(header)) + content[HEAD:]


def _receive(path: Path) -> None:
    """What comes is what was sent, or nothing; half a message waits for the rest."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(path.read_bytes())
        theirs.shutdown(socket.SHUT_WR)
        channel = Channel(ours)
        while True:
            try:
                for message, descriptors in channel.receive(block=True):
                    assert message in SENT
                    assert descriptors == []
            except EOFError:
                return


FRAMES = Kind(
    "frames",
    "frames",
    lambda: [b"".join(map(frame, SENT)), frame(SENT[1])],
    _receive,
    refusals=(DamagedError,),
    own=(_resealed,),
)
