"""`arrays:FILE.npz`: arrays of equal length; sample i is row i of each of them."""

from distseq.coding.npz_file import read_npz
from distseq.models.data.columns import Columns
from distseq.models.data.files import check_file


def open_arrays(path: str, dtype: str = "float32") -> Columns:
    """All arrays of the file, by name. ValueError if it can't be read, or its arrays differ in length or hold no numbers."""
    spec = f"arrays:{path}"
    check_file(f"data {spec!r}", path)
    try:
        columns = read_npz(path)
    except OSError as error:
        raise ValueError(f"can't read data {spec!r}: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"can't read data {spec!r}: {error}") from None
    return Columns(spec, columns, dtype)
