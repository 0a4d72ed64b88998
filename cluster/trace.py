"""Delay traces: tables of worker times that the simulator replays and real pools inject.

A trace file is an .npz with `times`, float (rounds, workers): seconds from dispatch to arrival of a task of load `load`
(fraction of a batch), and `slope`, seconds per unit of load. A task of load L takes `times[t, i] + slope * (L - load)`.
A worker's k-th invocation uses row k modulo rounds; NaN or inf means that the invocation is lost. The optional `master` is
the seconds per job during which the master handles no arrivals: decoding, the optimizer's step, a checkpoint.

A file named *.csv holds start-ups only, a column for each worker (distseq.cluster.trace_csv): load, slope and master are 0.
"""

import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from distseq.cluster.system.atomic_files import write_whole
from distseq.cluster.trace_csv import csv_bytes, is_csv, read_times
from distseq.coding.npz_file import read_npz


class TraceWarning(UserWarning):
    """A trace file holds something that is read in another way than it is written."""


@dataclass(frozen=True, eq=False)
class Trace:
    """Measured or generated delays of a fleet. ValueError for values that cannot be seconds or loads."""

    times: np.ndarray  # (rounds, workers) seconds
    load: float
    slope: float
    master: float = 0.0

    def __post_init__(self) -> None:
        if self.times.ndim != 2 or not self.times.size:
            raise ValueError(f"a trace's `times` must be (rounds, workers): got shape {self.times.shape}")
        if not np.issubdtype(self.times.dtype, np.floating):
            raise ValueError(f"a trace's `times` must be floating point seconds: got {self.times.dtype}")
        finite = self.times[np.isfinite(self.times)]
        if finite.size and float(finite.min()) < 0:
            raise ValueError(f"a trace's `times` must not be negative: got {float(finite.min())}")
        if not (np.isfinite(self.load) and np.isfinite(self.slope) and self.load >= 0 and self.slope >= 0):
            raise ValueError(
                f"a trace's load and slope must be finite and >= 0: got load={self.load}, slope={self.slope}"
            )
        if not (np.isfinite(self.master) and self.master >= 0):
            raise ValueError(f"a trace's master must be finite seconds >= 0: got {self.master}")

    @property
    def workers(self) -> int:
        return int(self.times.shape[1])

    def startup(self, invocation: int, worker: int) -> float:
        """Seconds before computing starts, at least 0; inf if the invocation is lost."""
        seconds = float(self.times[invocation % len(self.times), worker]) - self.slope * self.load
        return max(0.0, seconds) if np.isfinite(seconds) else np.inf

    @property
    def early(self) -> int:
        """The number of times that are shorter than their compute, slope x load: their start-ups count as 0."""
        # Jitter of a measured trace makes some so; no worker starts before it was asked to.
        return int(np.count_nonzero(self.times.astype(np.float64) < self.slope * self.load))

    def startups(self) -> np.ndarray:
        """(rounds, workers) float64: `startup` of each invocation and worker."""
        # float64, as `startup` computes: recorded times are float32, and both must give the same bits.
        seconds = self.times.astype(np.float64) - self.slope * self.load
        return np.where(np.isfinite(seconds), np.maximum(seconds, 0.0), np.inf)

    def with_slope(self, slope: float) -> "Trace":
        """The same start-ups with `slope` seconds of compute per batch."""
        return Trace(self.startups(), 0.0, slope, self.master)

    def first(self, n: int) -> "Trace":
        """The trace of the first n workers. ValueError if it has fewer."""
        if n > self.workers:
            raise ValueError(f"the trace has {self.workers} workers, but {n} are needed")
        return replace(self, times=self.times[:, :n])

    def save(self, path: Path) -> None:
        """Write a trace file. A .csv keeps the start-ups, and neither slope nor master. OSError if it cannot be written."""
        t = self
        if is_csv(path):
            data = csv_bytes(t.startups())
            write_whole(path, lambda file: file.write(data))
            return
        write_whole(
            path,
            lambda file: np.savez_compressed(file, times=t.times, load=t.load, slope=t.slope, master=t.master),
        )


def load_trace(path: Path) -> Trace:
    """Read a trace file. ValueError, in one line, if it is none. Never unpickles.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / "delays.csv").write_text("a,b\\n0.5,0.7\\n0.6,\\n")
    ...     load_trace(Path(folder) / "delays.csv").startups()
    array([[0.5, 0.7],
           [0.6, inf]])
    """
    try:
        if is_csv(path):
            return Trace(read_times(path), 0.0, 0.0)
        data = read_npz(path)
        absent = {"times", "load", "slope"} - data.keys()
        if absent:
            raise ValueError(f"the archive lacks {', '.join(sorted(absent))}")
        times, load, slope, master = data["times"], data["load"], data["slope"], data.get("master", np.zeros(()))
        if not load.size == slope.size == master.size == 1:
            shapes = f"{load.shape}, {slope.shape} and {master.shape}"
            raise ValueError(f"load, slope and master must be single numbers: got shapes {shapes}")
        trace = Trace(times, float(load.item()), float(slope.item()), float(master.item()))
        if trace.early:
            warnings.warn(
                f"{path}: {trace.early} of {times.size} times are shorter than slope x load, the compute in them: "
                "their start-ups count as 0",
                TraceWarning,
                stacklevel=2,
            )
        return trace
    except FileNotFoundError:
        raise ValueError(f"no trace file {path}") from None
    # TypeError: load, slope or master that are no numbers.
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{path} is not a trace: {error}") from None
