"""The transport of the Ray pool: actors, the messages to them, and the sums of their rows.

Payloads go through Ray's object store. Small rows arrive with the answers; large ones stay in the object store of the node
that computed them, and are added there. Ray's own restarts and retries are off, because the pool counts attempts itself.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import numpy as np
import ray

from distseq.cluster.hosts.kept_vectors import KeptVectors
from distseq.cluster.hosts.limits import READY_WITHIN
from distseq.cluster.hosts.messages import Command, Report
from distseq.cluster.hosts.transport import Death, LostError, Term, verified
from distseq.cluster.pool import Payload, PoolError
from distseq.cluster.ray import runtime_env
from distseq.cluster.ray.actor import GROUPS, Host, RemoteRow, RemoteVector
from distseq.cluster.ray.reservation import Patience, Reservation, around
from distseq.cluster.ray.resources import HostResources
from distseq.cluster.ray.session import Access, Session
from distseq.cluster.reduction import blocks, check_lengths, sum_in_place
from distseq.cluster.work import WorkSpec

# Bytes up to which a row travels with its answer. A tree of remote sums costs round trips of milliseconds, which small rows do
# not repay; of large ones the driver would receive n per job instead of one (docs/decisions/009).
INLINE = 1 << 20
CAUSE = 400  # characters kept of the cause of a death
# Seconds between two checks for dead hosts while waiting for a remote sum.
SUM_LOOK = 1.0
GONE = (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError)


@dataclass(eq=False)
class Actor:
    """A handle: the actor, and references to its process id and to its next batch of answers."""

    actor: Any
    pid: Any  # reference to the process id
    pending: Any  # reference to the next batch


@dataclass(frozen=True)
class Hosting:
    """What the actors of a pool get, and how long they may take to start."""

    resources: HostResources = field(default_factory=HostResources)
    runtime_env: Mapping[str, Any] = field(default_factory=dict)
    # Seconds until there is room for all hosts, and again until they have loaded their Work.
    ready_within: float = READY_WITHIN
    inline: int = INLINE


class RayTransport:
    """Actors on the Ray that `access` names.

    say: takes lines for the user, such as what is awaited. ValueError if there is no such Ray, or for a wrong runtime_env.
    """

    def __init__(self, spec: WorkSpec, access: Access, hosting: Hosting, say: Callable[[str], object]) -> None:
        self._hosting, self._say, self._spawned = hosting, say, count()
        # Ray frees an object when its last reference is gone.
        self._vectors: KeptVectors[Any] = KeptVectors(ray.put, lambda reference: None)
        runtime_env.check(hosting.runtime_env)
        self._session = Session(access, say)
        try:
            self._reservation = Reservation(hosting.resources, around())
            self._runtime_env = runtime_env.for_actors(hosting.runtime_env)
            # Once for all hosts instead of once for each: with learners made in Python it may hold whole data sets.
            self._spec = ray.put(spec)
        except BaseException:
            self._session.close()
            raise

    def room(self) -> int:
        return self._reservation.room()

    def reserve(self, hosts: int) -> None:
        """Blocks until so many hosts have room. ValueError if they never can; PoolError if that takes too long."""
        self._reservation.check(hosts)
        self._reservation.reserve(hosts, self._hosting.ready_within, self._say)

    def spawn(self, name: str) -> Actor:
        resources = self._hosting.resources
        options = {
            # With a count, since Ray refuses a name that a dying actor still has.
            "name": f"{self._reservation.name.partition(' ')[0]}-{name}-{next(self._spawned)}",
            "num_cpus": resources.cpus,
            "num_gpus": resources.gpus,
            "resources": dict(resources.resources),
            "scheduling_strategy": self._reservation.strategy(int(name.rpartition("-")[2])),
            # Ray would restart the actor empty and report its calls as lost only later; the pool replaces it with a new one.
            "max_restarts": 0,
            "concurrency_groups": GROUPS,
        }
        if self._runtime_env:
            options["runtime_env"] = self._runtime_env
        actor = ray.remote(**options)(Host).remote(self._spec, name, self._hosting.inline)
        pid = actor.pid.options(concurrency_group="control").remote()
        # One blocking call is always out: an answer then takes one way, where polling would take two.
        return Actor(actor, pid, _answers(actor))

    def wait_ready(self, handles: Sequence[Actor], seconds: float) -> None:
        pids, patience = [handle.pid for handle in handles], Patience(seconds, self._say)
        while True:
            ready, late = ray.wait(pids, num_returns=len(pids), timeout=patience.pause())
            try:
                ray.get(ready)
            except ray.exceptions.RayError as error:
                raise PoolError(f"an actor died before it was ready: {_cause(error)}") from None
            if not late:
                return
            awaited = f"{len(late)} of {len(pids)} hosts to start and load their work"
            if patience.over():
                raise PoolError(f"{awaited} took longer than {seconds:g} s; wait longer with ready_within")
            patience.tell(lambda awaited=awaited: awaited)  # type: ignore[misc]

    def share(self, payload: Payload) -> list[Any]:
        if payload.carried is not None:
            remote = payload.carried.fetched_by(lambda one: RemoteVector(self._vectors.take(one)))
            payload = replace(payload, carried=remote)
        # In a list, which `unshare` can empty: Ray frees an object when its last reference is gone.
        return [ray.put(payload)]

    def unshare(self, payload: Payload, shared: list[Any]) -> None:
        shared.clear()
        if payload.carried is not None:
            self._vectors.give_back(payload.carried.vectors)

    def post(self, handle: Actor, commands: list[Command], shared: Mapping[int, list[Any]]) -> None:
        boxed = {job: list(reference) for job, reference in shared.items()}
        handle.actor.post.options(concurrency_group="control").remote(commands, boxed)

    def wait(self, handles: Sequence[Actor], seconds: float) -> list[tuple[Actor, list[Report] | Death]]:
        pending = {handle.pending: handle for handle in handles}
        # Blocks for the first answer alone, then takes all that are there: waiting for all would wait for the slowest host.
        ray.wait(list(pending), num_returns=1, timeout=seconds)
        ready, _ = ray.wait(list(pending), num_returns=len(pending), timeout=0)
        return [(pending[reference], self._answers_of(pending[reference])) for reference in ready]

    def _answers_of(self, handle: Actor) -> list[Report] | Death:
        try:
            answers: list[Report] = ray.get(handle.pending)
        # The actor died, or the node that stored its answer.
        except GONE as error:
            return Death(_cause(error))
        except ray.exceptions.RayError as error:
            raise PoolError(f"a host cannot answer: {error}") from error
        handle.pending = _answers(handle.actor)
        return answers

    def stays(self, row: RemoteRow | np.ndarray) -> bool:
        return isinstance(row, RemoteRow)

    def free(self, handle: Actor, rows: Sequence[RemoteRow | np.ndarray]) -> None:
        """Nothing to do: Ray frees objects that nobody refers to."""

    def add(self, terms: Sequence[Term], meanwhile: Callable[[], bool]) -> np.ndarray:
        """Rows that came with their answers are added here; otherwise the hosts add them, and only the total is fetched."""
        check_lengths([term.row.length if isinstance(term.row, RemoteRow) else len(term.row) for term in terms])
        if not any(isinstance(term.row, RemoteRow) for term in terms):
            return sum_in_place([(term.weight, verified(term.task, term.row, term.digest)) for term in terms])
        level: list[Any] = [
            (str(p.task), p.weight, p.digest, p.row.reference if isinstance(p.row, RemoteRow) else p.row, p.handle)
            for p in terms
        ]
        # A digest marks a row, None a sum: one row alone is sent through a host too, which checks it and applies its weight.
        while len(level) > 1 or level[0][2] is not None:
            level = [self._block(level[block]) for block in blocks(len(level))]
        return self._root(level[0][3], meanwhile)

    def _block(self, rows: list[Any]) -> tuple[str, float, int | None, Any, Actor]:
        """A reference to a block's sum, computed by the host of its first row, where that row need not move."""
        names, weights, digests, references, handles = zip(*rows, strict=True)
        add = handles[0].actor.add.options(concurrency_group="sums")
        total = add.remote(list(names), list(weights), list(digests), *references)
        return "a sum", 1.0, None, total, handles[0]

    def _root(self, total: Any, meanwhile: Callable[[], bool]) -> np.ndarray:
        while not ray.wait([total], timeout=SUM_LOOK)[0]:
            if meanwhile():
                raise LostError("a host died while rows were added")
        try:
            decoded: np.ndarray = ray.get(total)
        except GONE as error:
            raise LostError(str(error)) from None
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, GONE):
                raise LostError(str(error.cause)) from None
            raise PoolError(f"rows cannot be added: {error.cause}") from None
        return decoded

    def pid(self, handle: Actor) -> int:
        ready, _ = ray.wait([handle.pid], timeout=0)
        try:
            return int(ray.get(ready[0])) if ready else 0
        except ray.exceptions.RayActorError:
            return 0

    def kill(self, handle: Actor) -> None:
        ray.kill(handle.actor)

    def close(self) -> None:
        self._reservation.close()
        self._session.close()


def _cause(error: Exception) -> str:
    """The text of Ray's message, without its tables and the logs that it appends."""
    # Those are indented or start with a bracket.
    lines = [line.strip() for line in str(error).splitlines() if line and not line[0].isspace() and line[0] != "["]
    return " ".join(lines)[:CAUSE] or type(error).__name__


def _answers(actor: Any) -> Any:
    return actor.answers.options(concurrency_group="answers").remote()
