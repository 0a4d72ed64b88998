"""The `Work` that workers compute; each host loads it from an import string and a JSON configuration."""

import json
import os
import sys
import traceback
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import numpy as np

from distseq.cluster.errors import DrawsError, Fault, StateError
from distseq.cluster.pool import Payload
from distseq.coding.import_string import load_object
from distseq.coding.plan import MiniTask


class Work(Protocol):
    """Computes rows of jobs. Must be a pure function of its arguments, bit for bit, on every host."""

    def row(self, payload: Payload, ids: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(L,) float32 or float64: the sum over samples of weight x (gradient, and whatever else is additive).

        `ids` (B,) int64, `weights` (B,) float64. B = 0, an empty part, gives zeros. Where `payload.blocks` is not 0, there is
        an argument `blocks` (B,) too: the block of each sample.
        """
        ...


@runtime_checkable
class ReadingWork(Protocol):
    """A Work that reads samples in a separate step, so that a host can read those of the next row in advance.

    A host calls `read` in one thread and, at the same time, `row` in another, with the result of an earlier `read`.
    """

    def read(self, payload: Payload, ids: np.ndarray) -> Any:
        """The samples, in the form that `row` takes as `samples`."""
        ...

    def row(self, payload: Payload, ids: np.ndarray, weights: np.ndarray, samples: Any = None) -> np.ndarray: ...


class RowRequest(NamedTuple):
    """The arguments of `row`."""

    payload: Payload
    ids: np.ndarray
    weights: np.ndarray
    samples: Any = None
    blocks: np.ndarray | None = None  # (B,) block of each sample, where the batch is cut into blocks

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of `row` and `read` that only jobs with blocks have."""
        return {} if self.blocks is None else {"blocks": self.blocks}


def row_request(payload: Payload, task: MiniTask) -> RowRequest:
    """What a mini-task of a job asks for, its samples not read yet."""
    ids, weights = payload.layout.row(task, payload.ids, payload.blocks)
    blocks = payload.layout.row_blocks(task, len(payload.ids), payload.blocks) if payload.blocks else None
    return RowRequest(payload, ids, weights, blocks=blocks)


def compute(work: Work, request: RowRequest) -> np.ndarray:
    """The row of a request whose samples are not read yet."""
    return work.row(*request[:3], **request.options)


@runtime_checkable
class StackingWork(ReadingWork, Protocol):
    """A ReadingWork that can compute several rows in one pass, bit-identical to `row`."""

    def shape(self, request: RowRequest) -> Hashable:
        """A key: rows with equal keys may be computed in one pass. None: the row must be computed alone."""
        ...

    def rows(self, requests: Sequence[RowRequest]) -> list[np.ndarray]:
        """The rows of requests of equal shape, in order."""
        ...


@runtime_checkable
class IdleWork(Protocol):
    """A Work that has something to prepare for the next job while its host has nothing to compute."""

    def idle(self) -> bool:
        """Prepares a little, for milliseconds, since commands wait meanwhile; whether there may be more. Never raises."""
        ...


def checked(row: object) -> np.ndarray:
    """The row, if it is one; else TypeError."""
    if not isinstance(row, np.ndarray):
        raise TypeError(f"a row must be a float32 or float64 vector: got {type(row).__name__}")
    if row.ndim != 1 or row.dtype not in (np.float32, np.float64):
        raise TypeError(f"a row must be a float32 or float64 vector: got {row.dtype} of shape {row.shape}")
    return row


def fault_of(error: BaseException) -> Fault:
    """An exception as text."""
    # Text, not the exception itself: unpickling an object of a worker would run its code on the master. Formatted by
    # TracebackException, which survives exceptions whose own __str__ raises.
    formatted = traceback.TracebackException.from_exception(error)
    message = " ".join(str(formatted).split())
    text = f"{type(error).__name__}{message and f': {message}'}"
    return Fault(
        text, "".join(formatted.format()), draws=isinstance(error, DrawsError), state=isinstance(error, StateError)
    )


@dataclass(frozen=True)
class WorkSpec:
    """How a host makes its Work: `target`, "module:name" of a callable, called with the items of `config`, a JSON object.

    `paths`: additional folders to import from; those that do not exist on a host are skipped.
    `prefetch`: if the Work is a ReadingWork, read the samples of the next row in advance.
    `stack`: if the Work is a StackingWork, the largest number of mini-tasks in one pass, which is never interrupted.
    `blob`: bytes passed unchanged as the argument `blob`, if not empty.
    """

    target: str
    config: str = "{}"
    paths: tuple[str, ...] = ()
    prefetch: bool = True
    stack: int = 1
    blob: bytes = b""

    def load(self) -> Work:
        """Import the target and call it. Passes on whatever these raise."""
        # At the end of sys.path: a user's folder must not hide installed packages.
        sys.path += [path for path in self.paths if path not in sys.path and os.path.isdir(path)]
        args = json.loads(self.config) | ({"blob": self.blob} if self.blob else {})
        return cast(Work, load_object(self.target)(**args))
