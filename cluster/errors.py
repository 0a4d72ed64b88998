"""What a pool raises and reports, in a file of its own so that naming it costs no import."""

from typing import NamedTuple


class PoolError(RuntimeError):
    """The pool cannot keep its promise: a bound on retries is spent, or its workers cannot load their Work."""


class Fault(NamedTuple):
    """The Work raised on one mini-task, or what it returned is no row. No retry can help; other work goes on."""

    text: str  # one line: kind and message
    traceback: str = ""
    machine: str = ""  # name of the host's machine in the network; empty in a simulation


class FaultError(RuntimeError):
    """A pool that computes rows only when they are collected has met a fault."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.text)
        self.fault = fault
