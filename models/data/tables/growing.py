"""An array that grows by its first dimension in place."""

import numpy as np


class Growing:
    """Appends rows of one type and shape; a list of pieces would take twice the memory when they are joined.

    >>> rows = Growing()
    >>> rows.append(np.ones((2, 3))), rows.append(np.zeros((1, 3))), rows.array().shape
    (None, None, (3, 3))
    """

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._dtype, self._shape, self._rows = np.dtype("float64"), (0,), 0

    def append(self, values: np.ndarray) -> None:
        """Append the rows of values (n, ...)."""
        self._dtype, self._shape = values.dtype, values.shape
        self._rows += len(values)
        self._bytes += np.ascontiguousarray(values).reshape(-1).view(np.uint8).data

    def array(self) -> np.ndarray:
        """(rows, ...) all rows. It shares the memory, so nothing can be appended while it lives."""
        return np.frombuffer(self._bytes, self._dtype).reshape(self._rows, *self._shape[1:])
