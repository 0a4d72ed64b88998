"""The interface of data sets, and the specs from which every host opens the same one."""

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from distseq.coding.factory import load_factory
from distseq.coding.import_string import load_object

if TYPE_CHECKING:
    import torch

D = TypeVar("D")

# Strings, so that a reader's module is imported only when it is used: one needs the datasets library, others take long to import.
OPENERS = {
    "aws": "distseq.models.data.text:open_aws",
    "text": "distseq.models.data.text:open_file",
    "folder": "distseq.models.data.text:open_folder",
    "arrays": "distseq.models.data.arrays:open_arrays",
    "csv": "distseq.models.data.tables.csv_file:open_csv",
    "parquet": "distseq.models.data.tables.parquet:open_parquet",
    "hf": "distseq.models.data.hf:open_hf",
    "torch": "distseq.models.data.torch_data:open_torch",
    "events": "distseq.models.data.events.dataset:open_events_data",
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

    def batch(self, indices: np.ndarray) -> "dict[str, torch.Tensor]":
        """Tensors of these samples, in this order, with first dimension len(indices). Reads no other samples."""
        ...


def open_dataset(spec: str, /, **args: Any) -> Dataset:
    """The data set that a spec names: `PREFIX:NAME` with a prefix of OPENERS, or `module:Class` of the user's own.

    `args` are passed to it. ValueError if there is no such data set, or if it does not take these arguments.
    """
    if not isinstance(spec, str):
        raise ValueError(f"a data set is named by text such as 'csv:FILE': got {type(spec).__name__}")
    prefix, _, rest = spec.partition(":")
    if rest and prefix in OPENERS:
        try:
            opener: Callable[..., Dataset] = load_object(OPENERS[prefix])
        except ValueError as error:
            if isinstance(error.__cause__, ModuleNotFoundError):
                raise missing_package(spec, str(error.__cause__.name)) from None
            raise
        return call_opener(spec, opener, [rest], args)
    own: Callable[..., Dataset] = load_opener(spec)
    return call_opener(spec, own, [], args)


def checked(name: str, dataset: Dataset) -> Dataset:
    """The data set. ValueError, naming it, for a length or a fingerprint that is none."""
    try:
        len(dataset)
    # TypeError: no __len__, or one that returns no whole number.
    except (TypeError, ValueError) as error:
        raise ValueError(f"data {name!r} has no length: {error}") from None
    # A user's may be anything.
    fingerprint: Any = dataset.fingerprint
    if not isinstance(fingerprint, str):
        got = type(fingerprint).__name__
        hint = ": is @property missing?" if got == "method" else ""
        raise ValueError(f"the fingerprint of data {name!r} must be text: got a {got}{hint}")
    return dataset


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


def is_data(kind: type) -> bool:
    """Whether a class is one of data sets: of torch, or with what a Dataset has."""
    # By name, for torch need not have been imported.
    of_torch = any(
        base.__name__ == "Dataset" and base.__module__ == "torch.utils.data.dataset" for base in kind.__mro__
    )
    return of_torch or (hasattr(kind, "batch") and hasattr(kind, "__len__"))


def load_opener(path: str) -> Callable[..., Any]:
    """The class or function that an import string `module:name` refers to, if it may be called to make a data set.

    ValueError, before anything is called, if there is none or if it may not (distseq.coding.factory).
    """
    module, _, name = path.partition(":")
    if not module or not name or module.startswith("."):
        raise ValueError(_unknown(path, "it is not of the form PREFIX:NAME"))
    target = f"{MOVED.get(module, module)}:{name}"
    try:
        return load_factory(target, "data set", is_data, "class of data sets", own_classes=True)
    except ValueError as error:
        cause = error.__cause__
        # If the module exists but one of its own imports is missing, that is another mistake, which must stay visible.
        if isinstance(cause, ModuleNotFoundError) and f"{module}.".startswith(f"{cause.name}."):
            raise ValueError(_unknown(path, f"there is no module {cause.name!r}")) from None
        if isinstance(cause, AttributeError):
            raise ValueError(_unknown(path, str(cause))) from None
        raise


def call_opener(spec: str, opener: Callable[..., D], names: list[str], args: dict[str, Any]) -> D:
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
