"""Turns columns of Arrow tables into numpy arrays of the same values and shapes, or refuses them by name and row."""

from typing import NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# What to do about columns of these kinds, which a tensor cannot hold.
HINTS = {
    "decimal": "write it as float64, or as int64 in the smallest unit",
    "temporal": "write the seconds as numbers",
    "string": "write numbers, such as the code of each category",
    "struct": "write its fields as columns of their own",
}


class ColumnValues:
    """Converts a column batch by batch; all batches must have one type and one shape.

    >>> import pyarrow as pa
    >>> ColumnValues("parquet:t", "v").convert(pa.array([[1.0, 2.0], [3.0, 4.0]]), 0).tolist()
    [[1.0, 2.0], [3.0, 4.0]]
    """

    def __init__(self, spec: str, name: str) -> None:
        self._spec, self._name = spec, name
        self._kind: tuple[np.dtype, tuple[int, ...]] | None = None

    def convert(self, column: pa.Array, first: int) -> np.ndarray:
        """(rows, ...) bool, integers or floats of the column's own width; `first` is the index of its first row.

        ValueError, naming the row, for a missing value (also within a list), lists of unequal lengths, or no numbers at all.
        """
        try:
            # Damaged files may hold offsets that point outside their buffers, which the conversions below would follow.
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            raise ValueError(f"column {self._name!r} of data {self._spec!r} is damaged: {_first_line(error)}") from None
        values = self._values(column, first, 1)
        if len(values):
            kind = (values.dtype, values.shape[1:])
            if self._kind is not None and kind != self._kind:
                self._refuse_shapes(self._kind[1], first, values.shape[1:])
            self._kind = kind
        return values

    def _values(self, column: pa.Array, first: int, width: int) -> np.ndarray:
        """(len(column), ...); `width` entries of `column` belong to one row."""
        kind = column.type
        if pa.types.is_dictionary(kind):
            return self._values(column.dictionary_decode(), first, width)
        # Looked for in Arrow, because numpy would show missing values as NaN, and whole numbers beside them as floats.
        if column.null_count:
            row = first + pc.index(column.is_null(), True).as_py() // width
            within = " in a list" if width > 1 else ""
            raise ValueError(f"column {self._name!r} of data {self._spec!r} has no value{within} at index {row}")
        if isinstance(kind, pa.FixedShapeTensorType):
            flat = self._values(column.storage.flatten(), first, width * _product(kind.shape))
            # The shape is that of the values in the file; the permutation says in which order they are meant.
            order = [axis + 1 for axis in kind.permutation or range(len(kind.shape))]
            return flat.reshape(len(column), *kind.shape).transpose(0, *order)
        if isinstance(kind, pa.BaseExtensionType):
            if kind.extension_name == "arrow.bool8":
                return np.asarray(pc.not_equal(column.storage, 0).to_numpy(zero_copy_only=False))
            return self._values(column.storage, first, width)
        if _is_list(kind):
            length = self._list_length(column, first, width)
            values = self._values(column.flatten(), first, width * max(length, 1))
            return values.reshape(len(column), length, *values.shape[1:])
        if not (pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            self._refuse_type(kind)
        return np.asarray(column.to_numpy(zero_copy_only=False))

    def _list_length(self, column: pa.Array, first: int, width: int) -> int:
        if pa.types.is_fixed_size_list(column.type):
            return int(column.type.list_size)
        lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
        other = np.flatnonzero(lengths != lengths[:1])
        if len(other):
            self._refuse_shapes((int(lengths[0]),), first + int(other[0]) // width, (int(lengths[other[0]]),))
        return int(lengths[0]) if len(lengths) else 0

    def _refuse_shapes(self, one: tuple[int, ...], row: int, other: tuple[int, ...]) -> NoReturn:
        was, now = (shape[0] if len(shape) == 1 else shape for shape in (one, other))
        raise ValueError(
            f"lists in column {self._name!r} of data {self._spec!r} must have equal lengths: got {was} and, at index {row}, {now}"
        )

    def _refuse_type(self, kind: pa.DataType) -> NoReturn:
        families = {
            "decimal": pa.types.is_decimal(kind),
            "temporal": pa.types.is_temporal(kind),
            "string": any(
                check(kind) for check in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
            ),
            "struct": pa.types.is_struct(kind),
        }
        hint = next((f": {HINTS[family]}" for family, found in families.items() if found), "")
        raise ValueError(
            f"column {self._name!r} of data {self._spec!r} must hold numbers, or lists of numbers, of at most 64 bits: "
            f"got {_first_line(kind)}{hint}"
        )


def _is_list(kind: pa.DataType) -> bool:
    # Maps are lists of pairs for Arrow too, but not numbers in any order that a model could rely on.
    checks = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    views = (pa.types.is_list_view, pa.types.is_large_list_view) if hasattr(pa.types, "is_list_view") else ()
    return any(check(kind) for check in (*checks, *views))


def _product(shape: list[int]) -> int:
    return int(np.prod(shape, dtype=np.int64))


def _first_line(thing: object) -> str:
    return " ".join(str(thing).splitlines()[:1])[:200]
