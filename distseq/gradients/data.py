"""Opens, verifies and reads a data set on a host; errors name the data set and the sample."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from distseq.cluster.system.child_call import ChildCall
from distseq.models.data.check import READ_OVER, files_to_check
from distseq.models.data.dataset import Dataset, checked, first_few, named_error, open_dataset

# One for this process, and the files that it has read over: (spec, arguments, size and time of each).
_CHILD = ChildCall()
_READ_OVER: set[tuple[Any, ...]] = set()
# What reading a file over may take: seconds at the start and bytes a second, and bytes of memory beside some per byte. Less than
# the 2 GiB that a damaged page can say it unpacks to, which this process would then ask for as well.
SECONDS, RATE, ROOM, PER_BYTE = 60.0, 1e6, 1 << 30, 16


class DataError(ValueError):
    """A data set is missing, differs from the master's or cannot be read; the message is one line."""


def open_data(data: str, args: Mapping[str, Any]) -> Dataset:
    """Opens the data set of a spec such as "text:FILE". DataError when it, or its fingerprint, cannot be read."""
    try:
        check_files(data, args)
        # With its fingerprint: some data sets read their content only for it, and an error belongs here, where it is named.
        return checked(data, open_dataset(data, **args))
    except (Exception, SystemExit) as error:  # a user's data set may raise anything
        raise DataError(named_error(f"data {data!r} cannot be opened", data, error)) from error


def check_files(data: str, args: Mapping[str, Any]) -> None:
    """Has the files of a spec read over by a child process, once. ValueError when that kills it.

    For formats whose readers, written in C++, a damaged file may crash: that must not be this process. Whatever else is wrong
    with the data is left to `open_dataset`.
    """
    try:
        status = [file.stat() for file in files_to_check(data)]
        key = (data, json.dumps(args, sort_keys=True), *((one.st_size, one.st_mtime_ns) for one in status))
    # A file that vanishes, or arguments that are not plain: opening the data says so.
    except (OSError, TypeError, ValueError):
        return
    if not status or key in _READ_OVER:
        return
    size = sum(one.st_size for one in status)
    ended = _CHILD.survives(READ_OVER, [data, args], seconds=SECONDS + size / RATE, room=ROOM + PER_BYTE * size)
    if ended is not None:
        raise ValueError(f"can't read data {data!r}: it is damaged, a process that read it {ended}")
    _READ_OVER.add(key)


class Source:
    """A data set on this host. DataError when the master's `fingerprint` is given and differs from its own."""

    def __init__(self, name: str, dataset: Dataset, fingerprint: str | None = None) -> None:
        self.name, self.dataset = name, dataset
        if fingerprint is not None and dataset.fingerprint != fingerprint:
            raise DataError(
                f"data {self.name!r} differ between hosts: sha256 {dataset.fingerprint[:12]} on this host, "
                f"{fingerprint[:12]} at the master; install the same version of the data on every host"
            )

    def batch(self, ids: np.ndarray) -> Any:
        """The tensors of samples `ids` (B,). DataError for a sample that cannot be read, or a batch without B samples."""
        try:
            batch = self.dataset.batch(ids)
        # A user's data set may raise anything, SystemExit too, which would end the run without a word.
        except (Exception, SystemExit) as error:
            raise self._unreadable(ids, error) from error
        for name, tensor in tensors(batch):
            # A batch of another length would give a wrong normalizer without any error.
            if tensor.shape[:1] != (len(ids),):
                of = f" of {name}" if name else ""
                raise DataError(
                    f"data {self.name!r}: the first dimension of a batch of {len(ids)} samples must be {len(ids)}: "
                    f"got shape {tuple(tensor.shape)}{of}"
                )
        return batch

    def check_finite(self, ids: np.ndarray, batch: Any) -> None:
        """DataError naming the first sample that is not finite.

        Called only where a row is not finite: checking every batch would cost a pass over all data.
        """
        for name, tensor in tensors(batch):
            infinite = ~torch.isfinite(tensor).reshape(len(ids), -1).all(1)
            if infinite.any():
                sample = int(ids[int(infinite.nonzero()[0])])
                where = f"data {self.name!r}, sample {sample}"
                raise DataError(
                    f"{where}: {f'{name} is' if name else 'it is'} not finite, so the gradient would not be finite"
                )

    def _unreadable(self, ids: np.ndarray, error: BaseException) -> DataError:
        """Reads the samples one by one to find the first that raises; if none does alone, the batch as a whole is named."""
        for i in ids.tolist():
            try:
                self.dataset.batch(np.array([i], dtype=np.int64))
            except (Exception, SystemExit) as alone:
                return DataError(named_error(f"data {self.name!r}, sample {i}", self.name, alone))
        return DataError(named_error(f"data {self.name!r}, batch of ids {first_few(ids)}", self.name, error))


def tensors(batch: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Yields (name, tensor) for every tensor in nested dicts, lists and tuples, with nested names joined by dots."""
    if isinstance(batch, torch.Tensor):
        yield name, batch
    elif isinstance(batch, Mapping):
        for key, value in batch.items():
            yield from tensors(value, f"{name}.{key}" if name else str(key))
    elif isinstance(batch, list | tuple):
        for k, value in enumerate(batch):
            yield from tensors(value, f"{name}.{k}" if name else str(k))
