"""What workers compute: a `Work`, which every host loads by itself from an import string and a JSON configuration."""

import importlib
import json
import os
import sys
import traceback
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import numpy as np

from distseq.cluster.errors import Fault
from distseq.cluster.pool import Payload


class Work(Protocol):
    """Rows of jobs. Must be a pure function of its arguments, bit for bit, on every host."""

    def row(self, payload: Payload, ids: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(L,) float32 or float64: the sum over samples of weight x (gradient and whatever else is additive).

        ids (B,) int64, weights (B,) float64; B = 0 is an empty part and gives zeros.
        """
        ...


@runtime_checkable
class ReadingWork(Protocol):
    """A Work whose samples can be read apart, so that a host reads those of the next row while it computes the present one.

    A host calls `read` in one thread only, and `row` in another, at the same time, with what `read` has returned.
    """

    def read(self, payload: Payload, ids: np.ndarray) -> Any:
        """What `row` takes as `samples`."""
        ...

    def row(self, payload: Payload, ids: np.ndarray, weights: np.ndarray, samples: Any = None) -> np.ndarray: ...


class RowRequest(NamedTuple):
    """What a row is asked of: the arguments of `row`."""

    payload: Payload
    ids: np.ndarray
    weights: np.ndarray
    samples: Any = None


@runtime_checkable
class StackingWork(ReadingWork, Protocol):
    """A ReadingWork that may compute several rows in one pass, with the very bits of `row`."""

    def shape(self, asked: RowRequest) -> Hashable:
        """What rows have in common that may be computed in one pass; None: this one is computed alone."""
        ...

    def rows(self, asked: Sequence[RowRequest]) -> list[np.ndarray]:
        """The rows, in their order, of one shape."""
        ...


def checked(row: object) -> np.ndarray:
    """The row. TypeError for what is none."""
    if not isinstance(row, np.ndarray):
        raise TypeError(f"a row must be a float32 or float64 vector: got {type(row).__name__}")
    if row.ndim != 1 or row.dtype not in (np.float32, np.float64):
        raise TypeError(f"a row must be a float32 or float64 vector: got {row.dtype} of shape {row.shape}")
    return row


def fault_of(error: BaseException) -> Fault:
    """An error as data, even one that cannot say what it is."""
    told = traceback.TracebackException.from_exception(error)
    message = " ".join(str(told).split())
    return Fault(f"{type(error).__name__}{message and f': {message}'}", "".join(told.format()))


def load_object(target: str) -> Any:
    """What the import string "module:name" names. ValueError when the module or the name is not there."""
    module, _, name = target.partition(":")
    if not module or not name:
        raise ValueError(f"{target!r} is not an import string of the form module:name")
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"cannot import {target!r}: {error}") from None
    if not hasattr(found, name):
        raise ValueError(f"cannot import {target!r}: module {module} has no {name!r}")
    return getattr(found, name)


@dataclass(frozen=True)
class WorkSpec:
    """`target` "module:name" of a callable that makes a Work from `config`, a JSON object.

    `paths` are folders to import from, besides those that a host has anyway; ones that a host lacks are passed over.
    `prefetch`: read the samples of the next row ahead, where the Work is a ReadingWork.
    `stack`: mini-tasks in one pass at most, where the Work is a StackingWork: a pass is not interrupted.
    `blob`, where there is one, is passed on as it is, as an argument of that name.
    """

    target: str
    config: str = "{}"
    paths: tuple[str, ...] = ()
    prefetch: bool = True
    stack: int = 1
    blob: bytes = b""

    def load(self) -> Work:
        """Import and build. Raises what importing and building raise."""
        sys.path += [path for path in self.paths if path not in sys.path and os.path.isdir(path)]
        args = json.loads(self.config) | ({"blob": self.blob} if self.blob else {})
        return cast(Work, load_object(self.target)(**args))
