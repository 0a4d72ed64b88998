"""Messages between the driver and its local hosts: those of every pool, with references to shared memory in place of vectors."""

from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from distseq.cluster.hosts.messages import Command, Report
from distseq.cluster.local.shared_memory import Reader, Reference
from distseq.cluster.pool import Payload


@dataclass(frozen=True)
class Stored:
    """A vector in transit, of the state that a learner carries: it is read from shared memory by who needs it."""

    reference: Reference

    def __call__(self) -> None:
        raise AssertionError("only a host has a reader")


class Shared(NamedTuple):
    """A payload in transit: everything but its parameters, and a reference to those in shared memory."""

    payload: Payload
    parameters: Reference

    def fetch(self, reader: Reader) -> Payload | None:
        """The whole payload; None if the master has retired the job and reused the block of its parameters."""
        parameters = reader.read(self.parameters)
        if parameters is None:
            return None
        carried = self.payload.carried
        if carried is not None:
            carried = carried.fetched_by(lambda one: partial(reader.read, one.reference))  # type: ignore[attr-defined]
        return replace(self.payload, parameters=parameters, carried=carried)


class Post(NamedTuple):
    """One message to a host."""

    commands: list[Command]
    shared: dict[int, Shared]  # job -> payload
    free: list[Reference]  # rows that are no longer needed


class Answers(NamedTuple):
    """One message of a host; an empty one is a sign of life."""

    answers: list[Report]


class Broken(NamedTuple):
    """The last message of a host that cannot go on, for a reason that every other host would meet too."""

    text: str
