"""`arrays:FILE.npz`: arrays of equal length; sample i is row i of each of them."""

import zipfile

import numpy as np

from distseq.models.data.columns import Columns
from distseq.models.data.dataset import one_line


def open_arrays(path: str, dtype: str = "float32") -> Columns:
    """All arrays of the file, by name. ValueError if it can't be read, or its arrays differ in length or hold no numbers."""
    spec = f"arrays:{path}"
    try:
        if not zipfile.is_zipfile(path):
            # Opening it raises an OSError, with a message of its own, if the file is missing or must not be read.
            with open(path, "rb"):
                raise ValueError(f"can't read data {spec!r}: it is not an .npz file")
        # A file of data may come from anywhere, and a pickled array would run code.
        with np.load(path, allow_pickle=False) as file:
            return Columns(spec, _members(spec, file), dtype)
    except OSError as error:
        raise ValueError(f"can't read data {spec!r}: {error.strerror or one_line(error)}") from None
    except zipfile.BadZipFile as error:
        raise ValueError(f"can't read data {spec!r}: {one_line(error)}") from None


def _members(spec: str, file: np.lib.npyio.NpzFile) -> dict[str, np.ndarray]:
    columns = {}
    for name in file.files:
        try:
            columns[name] = file[name]
        except (ValueError, EOFError) as error:
            raise ValueError(f"column {name!r} of data {spec!r} can't be read: {one_line(error)}") from None
        if not isinstance(columns[name], np.ndarray):
            raise ValueError(f"member {name!r} of data {spec!r} is not an array")
    return columns
