"""`torch:module:Class`: a map-style torch data set of tensors, numbers, or dicts and tuples of them."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, default_collate

from distseq.models.data.dataset import (
    Dataset,
    call_opener,
    check_ids,
    checked,
    first_few,
    load_opener,
    one_line,
    open_dataset,
)
from distseq.models.data.events.data import EventData
from distseq.models.data.events.dataset import Events
from distseq.models.data.events.stream import EventStream

# Samples in the fingerprint of a data set that has none of its own. All of them could take hours, each may be an image to decode;
# evenly spaced ones find another version, file or order, but not a single changed sample.
HASHED = 64


class Samples:
    """A data set with `__len__` and `__getitem__`, whose samples `collate` makes into batches.

    `fingerprint` is the data set's own attribute of that name, else a hash of its length and 64 evenly spaced samples.
    ValueError, naming the data set, if it lacks these methods or a sample can't be read.
    """

    def __init__(self, spec: str, data: Any, collate: Callable[[list[Any]], Any] = default_collate) -> None:
        if not hasattr(data, "__len__") or not hasattr(data, "__getitem__"):
            hint = ": give its dataset, and its collate_fn as collate" if isinstance(data, DataLoader) else ""
            raise ValueError(f"data {spec!r} must have __len__ and __getitem__: {type(data).__name__} hasn't{hint}")
        self._spec, self._data, self._samples, self._collate = spec, data, len(data), collate
        own = getattr(data, "fingerprint", None)
        if own is not None and not isinstance(own, str):
            raise ValueError(f"the fingerprint of data {spec!r} must be text: got {type(own).__name__}")
        self.fingerprint: str = self._hash() if own is None else own

    def __len__(self) -> int:
        return self._samples

    def batch(self, indices: np.ndarray) -> Any:
        """The result of `collate` for at least one sample; by default tensors with first dimension len(indices).

        They have the structure of the samples, in which a tuple becomes a list.
        """
        check_ids(indices, len(self), self._spec)
        if not len(indices):
            raise ValueError(f"a batch of data {self._spec!r} must have at least one sample: got none")
        samples = [self._sample(int(i)) for i in indices]
        try:
            return self._collate(samples)
        except Exception as error:
            raise ValueError(
                f"data {self._spec!r}: samples {first_few(indices)} can't be collated: {one_line(error)}"
            ) from error

    def _sample(self, index: int) -> Any:
        try:
            return self._data[index]
        # A user's data set may raise anything.
        except Exception as error:
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
    """A sample's structure and values, as bytes. TypeError for objects that have no such form."""
    # With types, shapes and lengths, so that samples of equal bytes and different structure differ.
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
    """The data set that `path`, "module:Class", makes from `args`. ValueError if it can't be made."""
    spec = f"torch:{path}"
    opener = load_opener(path)
    try:
        data = call_opener(spec, opener, [], args)
    except (ValueError, ImportError):
        raise
    # A user's data set may raise anything.
    except Exception as error:
        raise ValueError(f"data {spec!r} with {args}: {one_line(error)}") from error
    return Samples(spec, data)


def as_dataset(data: Any, args: Mapping[str, Any], collate: Callable[[list[Any]], Any] | None) -> Dataset | Samples:
    """A data set: from a spec opened with `args`, of a map-style torch data set with `collate`, of the training events of a
    stream, or a Dataset as it is.

    ValueError for `args` without a spec, or `collate` without a torch data set.
    """
    if args and not isinstance(data, str):
        raise ValueError(f"data_args needs a data spec: got a {type(data).__name__}")
    mapped = not isinstance(data, str | EventStream | EventData) and not (
        hasattr(data, "batch") and hasattr(data, "fingerprint")
    )
    if collate is not None and not mapped:
        raise ValueError(f"collate needs a map-style torch data set: got a {type(data).__name__}")
    if isinstance(data, str):
        return checked(data, open_dataset(data, **args))
    if isinstance(data, EventStream | EventData):
        return Events(data)
    name = type(data).__name__
    return Samples(name, data, collate or default_collate) if mapped else checked(name, data)
