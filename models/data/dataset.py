"""The interface of data sets, and the specs from which every host opens the same one."""

import importlib
import inspect
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch

# Strings, so that a reader's module is imported only when it is used: one needs pyarrow, another the datasets library.
OPENERS = {
    "aws": "distseq.models.data.text:open_aws",
    "text": "distseq.models.data.text:open_file",
    "folder": "distseq.models.data.text:open_folder",
    "arrays": "distseq.models.data.arrays:open_arrays",
    "csv": "distseq.models.data.csv_file:open_csv",
    "parquet": "distseq.models.data.parquet:open_parquet",
    "hf": "distseq.models.data.hf:open_hf",
    "torch": "distseq.models.data.torch_data:open_torch",
}


class Dataset(Protocol):
    """Training samples with ids 0 to len - 1. Data sets with equal fingerprints hold the same samples."""

    @property
    def fingerprint(self) -> str:
        """Hexadecimal sha256 of everything that decides what `batch` returns."""
        ...

    def __len__(self) -> int:
        """The number of training samples."""
        ...

    def batch(self, indices: np.ndarray) -> dict[str, torch.Tensor]:
        """Tensors of these samples, in this order, with first dimension len(indices). Reads no other samples."""
        ...


def open_dataset(spec: str, /, **args: Any) -> Dataset:
    """The data set that a spec names: `PREFIX:NAME` with a prefix of OPENERS, or `module:Class` of the user's own.

    `args` are passed to it. ValueError if there is no such data set, or if it does not take these arguments.
    """
    prefix, _, rest = spec.partition(":")
    if rest and prefix in OPENERS:
        return call_opener(spec, load_opener(OPENERS[prefix]), [rest], args)
    return call_opener(spec, load_opener(spec), [], args)


def check_ids(indices: np.ndarray, samples: int, spec: str | None = None) -> None:
    """ValueError, naming the spec if there is one, for an id outside 0 to samples - 1."""
    # Negative ids too, which numpy would count from the end.
    outside = (indices < 0) | (indices >= samples)
    if outside.any():
        of = "" if spec is None else f" of data {spec!r}"
        raise ValueError(f"sample ids{of} must be in 0 .. {samples - 1}: got {indices[outside][:5].tolist()}")


def one_line(error: BaseException) -> str:
    """An error on one line: its type and the first line of its message."""
    return f"{type(error).__name__}: {' '.join(str(error).splitlines()[:1])}"


def named_error(where: str, spec: str, error: BaseException) -> str:
    """An error on one line that names the data set: as it is if it does so already, else after the prefix `where`."""
    # Our readers name the data set in their messages; a user's own data set does not know its spec.
    message = " ".join(str(error).splitlines()[:1])
    return message if isinstance(error, ValueError) and f"data {spec!r}" in message else f"{where}: {one_line(error)}"


def first_few(indices: np.ndarray) -> str:
    """The first sample ids of a batch, for a message."""
    return f"{indices[:5].tolist()}{' ...' if len(indices) > 5 else ''}"


def missing_package(spec: str, package: str) -> ValueError:
    """The error for a reader whose optional package is missing."""
    return ValueError(f"data {spec!r} needs {package}, which is not installed: python -m pip install {package}")


# Modules that have moved -> where they are now: config files written for earlier versions keep working.
MOVED = {"distseq.models.synthetic": "distseq.models.data.synthetic"}


def load_opener(path: str) -> Callable[..., Dataset]:
    """The object that an import string `module:name` refers to. ValueError if there is none."""
    module, _, name = path.partition(":")
    if not module or not name or module.startswith("."):
        raise ValueError(_unknown(path, "it is not of the form PREFIX:NAME"))
    try:
        found = getattr(importlib.import_module(MOVED.get(module, module)), name, None)
    except ModuleNotFoundError as error:
        # If the module exists but one of its own imports is missing, that is another mistake, which must stay visible.
        if not f"{module}.".startswith(f"{error.name}."):
            raise
        raise ValueError(_unknown(path, f"there is no module {error.name!r}")) from None
    if found is None:
        raise ValueError(_unknown(path, f"module {module!r} has no class or function {name!r}"))
    opener: Callable[..., Dataset] = found
    return opener


def call_opener(spec: str, opener: Callable[..., Dataset], names: list[str], args: dict[str, Any]) -> Dataset:
    """The opened data set. ValueError for arguments that the opener doesn't take."""
    # Bound before the call, so that a TypeError raised inside the opener is not taken for a wrong argument.
    try:
        inspect.signature(opener).bind(*names, **args)
    except TypeError as error:
        raise ValueError(f"data set {spec!r} can't be opened with {args}: {error}") from None
    return opener(*names, **args)


def _unknown(spec: str, why: str) -> str:
    known = ", ".join(f"{prefix}:..." for prefix in OPENERS)
    return f"unknown data set {spec!r}: {why}; known: {known}, or module:Class of your own"
