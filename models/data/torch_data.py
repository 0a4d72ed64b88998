"""`torch:module:Class`: any map-style torch data set, whose samples are tensors, numbers, or dicts and tuples of them."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, default_collate

from distseq.models.data.dataset import Dataset, call_opener, check_ids, few, load_opener, one_line, open_dataset

HASHED = 64  # samples that a fingerprint looks at where the data set has none of its own


class Samples:
    """What `collate` makes of the samples of a data set with `__len__` and `__getitem__`.

    `fingerprint` is the data set's own attribute of that name, else a hash of its length and 64 evenly spaced samples.
    """

    def __init__(self, spec: str, data: Any, collate: Callable[[list[Any]], Any] = default_collate) -> None:
        if not hasattr(data, "__len__") or not hasattr(data, "__getitem__"):
            hint = ": give its dataset, and its collate_fn as collate" if isinstance(data, DataLoader) else ""
            raise ValueError(f"data {spec!r} must have __len__ and __getitem__: {type(data).__name__} has not{hint}")
        self._spec, self._data, self._samples, self._collate = spec, data, len(data), collate
        own = getattr(data, "fingerprint", None)
        if own is not None and not isinstance(own, str):
            raise ValueError(f"the fingerprint of data {spec!r} must be text: got {type(own).__name__}")
        self.fingerprint: str = self._hash() if own is None else own

    def __len__(self) -> int:
        return self._samples

    def batch(self, indices: np.ndarray) -> Any:
        """What `collate` returns for len(indices) >= 1 samples; by default tensors with that first dimension, in the samples'
        own structure; a tuple becomes a list."""
        check_ids(indices, len(self), self._spec)
        if not len(indices):
            raise ValueError(f"a batch of data {self._spec!r} needs at least one sample")
        samples = [self._sample(int(i)) for i in indices]
        try:
            return self._collate(samples)
        except Exception as error:
            raise ValueError(f"data {self._spec!r}, samples {few(indices)} make no batch: {one_line(error)}") from error

    def _sample(self, index: int) -> Any:
        try:
            return self._data[index]
        except Exception as error:  # a user's data set may raise anything
            raise ValueError(f"data {self._spec!r}, sample {index}: {one_line(error)}") from error

    def _hash(self) -> str:
        digest = hashlib.sha256(f"{self._samples} samples".encode())
        for index in np.unique(np.linspace(0, self._samples - 1, min(HASHED, self._samples)).astype(int)).tolist():
            try:
                for piece in _pieces(self._sample(index)):
                    digest.update(piece)
            except TypeError as error:
                raise ValueError(f"data {self._spec!r}, sample {index}: {error}") from None
        return digest.hexdigest()


def _pieces(sample: Any) -> Iterator[bytes]:
    """A sample's structure and values, as bytes. TypeError for what they can't be told of."""
    if isinstance(sample, torch.Tensor):
        flat = sample.detach().cpu().contiguous().reshape(-1)
        yield f"{sample.dtype} {tuple(sample.shape)}".encode() + flat.view(torch.uint8).numpy().tobytes()
    elif isinstance(sample, np.ndarray | np.generic) and sample.dtype != object:
        yield f"{sample.dtype.str} {sample.shape}".encode() + sample.tobytes()
    elif isinstance(sample, dict):
        for key in sorted(sample):
            yield f"{key!r}:".encode()
            yield from _pieces(sample[key])
    elif isinstance(sample, tuple | list):
        yield f"{len(sample)} of".encode()
        for one in sample:
            yield from _pieces(one)
    elif isinstance(sample, bool | int | float | str | bytes):
        yield repr(sample).encode()
    else:
        raise TypeError(f"{type(sample).__name__} can't be hashed: give the data set a `fingerprint`")


def open_torch(path: str, **args: Any) -> Samples:
    """The data set that `path`, "module:Class", makes from `args`."""
    spec = f"torch:{path}"
    opener = load_opener(path)
    try:
        data = call_opener(spec, opener, [], args)
    except (ValueError, ImportError):
        raise
    except Exception as error:  # a user's data set may raise anything
        raise ValueError(f"data {spec!r} with {args}: {one_line(error)}") from error
    return Samples(spec, data)


def as_dataset(data: Any, args: Mapping[str, Any], collate: Callable[[list[Any]], Any] | None) -> Dataset | Samples:
    """A spec opened with `args`, a map-style torch data set under `collate`, or what is a Dataset already, as it is."""
    if args and not isinstance(data, str):
        raise ValueError(f"data_args are for a spec: got a {type(data).__name__}")
    mapped = not isinstance(data, str) and not (hasattr(data, "batch") and hasattr(data, "fingerprint"))
    if collate is not None and not mapped:
        raise ValueError("collate is for a map-style torch data set")
    if isinstance(data, str):
        return open_dataset(data, **args)
    return Samples(type(data).__name__, data, collate or default_collate) if mapped else data
