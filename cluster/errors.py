"""Exceptions of pools, and faults of mini-tasks; imports nothing, so that it is cheap to import."""

from typing import NamedTuple


class PoolError(RuntimeError):
    """The pool cannot deliver what was sent: its retries are used up, or its workers cannot load their Work."""


class DrawsError(RuntimeError):
    """A Work has drawn random numbers for a row of a job whose batch is not cut into blocks; the row is not used."""


class StateError(RuntimeError):
    """A host cannot make the state that a job's rows read, or its own differs; the job can be sent again with the state."""


class Fault(NamedTuple):
    """The Work raised in one mini-task, or returned something that is not a row. It is not retried; other work goes on."""

    text: str  # one line: exception type and message
    traceback: str = ""
    machine: str = ""  # host name of the machine; empty in a simulation
    draws: bool = False  # it was a DrawsError: the job can be opened again, cut into blocks
    state: bool = False  # it was a StateError: the job can be opened again, with the state that its rows read


class FaultError(RuntimeError):
    """A row that is computed only in `collect` has met a fault."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.text)
        self.fault = fault
