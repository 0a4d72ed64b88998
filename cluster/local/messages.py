"""Messages between the driver and its local hosts: those of every pool, with references to shared memory in place of vectors."""

from dataclasses import replace
from typing import NamedTuple

from distseq.cluster.hosts.messages import Command, Report
from distseq.cluster.local.shared_memory import Reader, Reference
from distseq.cluster.pool import Payload


class Shared(NamedTuple):
    """A payload in transit: everything but its parameters, and a reference to those in shared memory."""

    payload: Payload
    parameters: Reference

    def fetch(self, reader: Reader) -> Payload | None:
        """The whole payload; None if the master has retired the job and reused the block of its parameters."""
        parameters = reader.read(self.parameters)
        return None if parameters is None else replace(self.payload, parameters=parameters)


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
