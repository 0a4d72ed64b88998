"""Data sets as the learners' rows need them: opened, compared and read; what goes wrong names data set and sample."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from distseq.models.data.dataset import Dataset, first_few, named_error, open_dataset


class DataError(ValueError):
    """A data set is missing, differs or cannot be read. The message is one line and names data set and samples."""


def open_data(data: str, args: Mapping[str, Any]) -> Dataset:
    """A data set whose fingerprint can be told. DataError when it cannot be opened."""
    try:
        dataset = open_dataset(data, **args)
        _ = dataset.fingerprint
        return dataset
    except Exception as error:  # a user's data set may raise anything
        raise DataError(named_error(f"data {data!r} cannot be opened", data, error)) from error


class Source:
    """A data set on this host. DataError when it is not the one of the master's fingerprint, if that is given."""

    def __init__(self, name: str, dataset: Dataset, fingerprint: str | None = None) -> None:
        self.name, self.dataset = name, dataset
        if fingerprint is not None and dataset.fingerprint != fingerprint:
            raise DataError(
                f"data {self.name!r} differ on this host: sha256 {dataset.fingerprint[:12]}, the master has "
                f"{fingerprint[:12]}; install the same version of the data everywhere"
            )

    def batch(self, ids: np.ndarray) -> Any:
        """Tensors of these samples. DataError naming the sample that cannot be read, or a batch that is not of len(ids)."""
        try:
            batch = self.dataset.batch(ids)
        except Exception as error:  # a user's data set may raise anything
            raise self._unreadable(ids, error) from error
        for name, tensor in tensors(batch):
            if tensor.shape[:1] != (len(ids),):
                of = f" of {name}" if name else ""
                raise DataError(
                    f"data {self.name!r}: the first dimension of a batch of {len(ids)} samples must be {len(ids)}: "
                    f"got shape {tuple(tensor.shape)}{of}"
                )
        return batch

    def check_finite(self, ids: np.ndarray, batch: Any) -> None:
        """DataError naming the first sample that is not finite: to be asked where a row is not."""
        for name, tensor in tensors(batch):
            infinite = ~torch.isfinite(tensor).reshape(len(ids), -1).all(1)
            if infinite.any():
                sample = int(ids[int(infinite.nonzero()[0])])
                where = f"data {self.name!r}, sample {sample}"
                raise DataError(f"{where}: not finite{f' in {name}' if name else ''}, and so is its row")

    def _unreadable(self, ids: np.ndarray, error: Exception) -> DataError:
        """The samples are tried one by one: the first that raises alone is to blame, else the batch as a whole."""
        for i in ids.tolist():
            try:
                self.dataset.batch(np.array([i], dtype=np.int64))
            except Exception as alone:  # the same, of one sample
                return DataError(named_error(f"data {self.name!r}, sample {i}", self.name, alone))
        return DataError(named_error(f"data {self.name!r}, batch of ids {first_few(ids)}", self.name, error))


def tensors(batch: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """(name, tensor) of every tensor in nested dicts, lists and tuples; nested names are joined by dots."""
    if isinstance(batch, torch.Tensor):
        yield name, batch
    elif isinstance(batch, Mapping):
        for key, value in batch.items():
            yield from tensors(value, f"{name}.{key}" if name else str(key))
    elif isinstance(batch, list | tuple):
        for k, value in enumerate(batch):
            yield from tensors(value, f"{name}.{k}" if name else str(k))
