"""What a dataset is, and how every host opens the same one from a spec string."""

import importlib
import inspect
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch

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
    """Training samples with ids 0 .. len - 1. Hosts with equal fingerprints hold the same samples."""

    @property
    def fingerprint(self) -> str:
        """sha256, in hex, of everything that decides what `batch` returns."""
        ...

    def __len__(self) -> int:
        """Number of training sample ids."""
        ...

    def batch(self, indices: np.ndarray) -> dict[str, torch.Tensor]:
        """Tensors of these samples, in this order, first dimension len(indices); reads nothing else."""
        ...


def open_dataset(spec: str, /, **args: Any) -> Dataset:
    """The dataset of a spec: `PREFIX:NAME` for a prefix of OPENERS, or `module:Class` of the user's own, called with `args`."""
    prefix, _, rest = spec.partition(":")
    if rest and prefix in OPENERS:
        return call_opener(spec, load_opener(OPENERS[prefix]), [rest], args)
    return call_opener(spec, load_opener(spec), [], args)


def check_ids(indices: np.ndarray, samples: int, spec: str | None = None) -> None:
    """ValueError, naming the spec if given, when an id is outside 0 .. samples - 1."""
    outside = (indices < 0) | (indices >= samples)
    if outside.any():
        of = "" if spec is None else f" of data {spec!r}"
        raise ValueError(f"sample ids{of} must be in 0 .. {samples - 1}: got {indices[outside][:5].tolist()}")


def one_line(error: BaseException) -> str:
    """What went wrong, in one line: the error's kind and the first line of its message."""
    return f"{type(error).__name__}: {' '.join(str(error).splitlines()[:1])}"


def naming(where: str, spec: str, error: BaseException) -> str:
    """What went wrong, in one line that names the data set once: what is here say so themselves, a user's own need `where`."""
    said = " ".join(str(error).splitlines()[:1])
    return said if isinstance(error, ValueError) and f"data {spec!r}" in said else f"{where}: {one_line(error)}"


def few(indices: np.ndarray) -> str:
    """The first sample ids of a batch, for a message."""
    return f"{indices[:5].tolist()}{' ...' if len(indices) > 5 else ''}"


def needs(spec: str, package: str) -> ValueError:
    """What to say when an optional package of an adapter is missing."""
    return ValueError(f"data {spec!r} need {package}, which is not installed: python -m pip install {package}")


# Where config files of earlier versions name a module that has moved.
MOVED = {"distseq.models.synthetic": "distseq.models.data.synthetic"}


def load_opener(path: str) -> Callable[..., Dataset]:
    """The object an import string `module:name` stands for. ValueError when there is none."""
    module, _, name = path.partition(":")
    if not module or not name or module.startswith("."):
        raise ValueError(_unknown(path, "it is not of the form PREFIX:NAME"))
    try:
        found = getattr(importlib.import_module(MOVED.get(module, module)), name, None)
    except ModuleNotFoundError as error:
        # A module that exists but lacks one of its own imports is another mistake, which must stay visible.
        if not f"{module}.".startswith(f"{error.name}."):
            raise
        raise ValueError(_unknown(path, f"there is no module {error.name!r}")) from None
    if found is None:
        raise ValueError(_unknown(path, f"module {module!r} has no class or function {name!r}"))
    opener: Callable[..., Dataset] = found
    return opener


def call_opener(spec: str, opener: Callable[..., Dataset], names: list[str], args: dict[str, Any]) -> Dataset:
    """The opened dataset; arguments that the opener doesn't take are the caller's mistake."""
    try:
        inspect.signature(opener).bind(*names, **args)
    except TypeError as error:
        raise ValueError(f"dataset {spec!r} can't be opened with {args}: {error}") from None
    return opener(*names, **args)


def _unknown(spec: str, why: str) -> str:
    known = ", ".join(f"{prefix}:..." for prefix in OPENERS)
    return f"unknown dataset {spec!r}: {why}; known are {known} and module:Class of your own"
