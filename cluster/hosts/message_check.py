"""Checks what a host reports before the pool believes it: a host may run any code, and its memory may be damaged."""

import math
from collections.abc import Callable

from distseq.cluster.hosts.messages import Answer, Failure, Progress
from distseq.cluster.pool import Fault
from distseq.coding.plan import MiniTask


def damage(reports: object, exists: Callable[[MiniTask], bool]) -> str | None:
    """What is wrong with a batch of reports, in a few words; None for one that may be used.

    exists: whether a mini-task of whole numbers from 0 on can have been sent.

    >>> damage([Progress((), 0.0, True)], lambda task: task.worker < 4)
    >>> damage([Progress((MiniTask(0, 0, 9),), 0.0)], lambda task: task.worker < 4)
    'it reported a mini-task that does not exist'
    """
    if not isinstance(reports, list):
        return f"it sent a {type(reports).__name__} in place of reports"
    return next((found for report in reports if (found := _damage(report, exists)) is not None), None)


def _damage(report: object, exists: Callable[[MiniTask], bool]) -> str | None:
    if isinstance(report, Answer):
        return _damaged_answer(report, exists)
    if isinstance(report, Progress):
        tasks = report.tasks
        if not isinstance(tasks, tuple) or not all(_is_task(task, exists) for task in tasks):
            return "it reported a mini-task that does not exist"
        timed = _seconds(report.seconds) and type(report.idle) is bool
        return None if timed else "it reported seconds that no clock shows"
    if isinstance(report, Failure):
        return None if all(isinstance(text, str) for text in report) else "it sent a failure that is no text"
    return f"it sent a {type(report).__name__} in place of a report"


def _damaged_answer(answer: Answer, exists: Callable[[MiniTask], bool]) -> str | None:
    if not _is_task(answer.task, exists):
        return "it reported a mini-task that does not exist"
    if not (_seconds(answer.startup) and _seconds(answer.compute)):
        return "it reported seconds that no clock shows"
    numbers = (answer.version, answer.attempt, answer.invocation, answer.digest)
    if not all(type(number) is int and number >= 0 for number in numbers):
        return "it sent an answer without its numbers"
    if answer.fault is not None and not _is_fault(answer.fault):
        return "it sent a fault that is no text"
    return None


def _is_fault(fault: object) -> bool:
    texts = isinstance(fault, Fault) and all(
        isinstance(each, str) for each in (fault.text, fault.traceback, fault.machine)
    )
    return texts and isinstance(fault, Fault) and type(fault.draws) is bool and type(fault.state) is bool


def _is_task(task: object, exists: Callable[[MiniTask], bool]) -> bool:
    return isinstance(task, MiniTask) and all(type(number) is int and number >= 0 for number in task) and exists(task)


def _seconds(value: object) -> bool:
    # No boolean, and no whole number that is too large for a float.
    return (isinstance(value, float) or (type(value) is int and value < 2**53)) and math.isfinite(value) and value >= 0
