"""The data of a world: inputs, targets and valid steps, with odd values among them."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from tests.differential.models import FEATURES, OUTPUTS, SYMBOLS

DTYPES = {"float32": torch.float32, "float64": torch.float64}


class Samples:
    """The data of a world, as a config file names them."""

    def __init__(self, **drawn: Any) -> None:
        self._data, self.fingerprint = tensors(**drawn), str(sorted(drawn.items()))

    def __len__(self) -> int:
        return len(self._data)

    def batch(self, indices: np.ndarray) -> tuple[Tensor, ...]:
        return self._data[indices]  # type: ignore[no-any-return]


def tensors(samples: int, length: int, dtype: str, odd: bool, entry: str, evaluation: bool = False) -> TensorDataset:
    """Inputs, targets, and which steps are valid."""
    draws, shape = torch.Generator().manual_seed(samples + 100 * length + evaluation), (samples, length)
    x = torch.randn(*shape, FEATURES, generator=draws, dtype=torch.float64)
    y = torch.randn(*shape, OUTPUTS, generator=draws, dtype=torch.float64)
    valid = torch.ones(shape, dtype=torch.float64)
    symbols = torch.randint(SYMBOLS, shape, generator=draws)
    if odd:
        x[::3], x[1::4], y[::5] = 0.0, x[:1], 3.0
        x[-1] *= 10.0
        valid = (torch.rand(shape, generator=draws) < 0.5).double()
        valid[::4] = 0.0
    if evaluation:
        # A mean over nothing is no loss.
        valid[0] = 1.0
    inputs = x.to(DTYPES[dtype]) if entry == "linear" else symbols
    return TensorDataset(inputs, y.to(DTYPES[dtype]), valid.to(DTYPES[dtype]))
