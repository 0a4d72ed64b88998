"""What a learner is evaluated on: a data set of its own, or the held-out part of its text."""

import hashlib

import numpy as np
import torch

from distseq.models.data.dataset import Dataset, check_ids
from distseq.models.data.text import Text, windows

LIMIT = 512  # windows of a text


class HeldOut:
    """The held-out part of a text in consecutive windows, or `limit` of them, evenly spaced, as samples 0 .. N - 1."""

    def __init__(self, text: Text, limit: int | None = None) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"a held-out limit needs at least 1 window: got limit={limit}")
        count = (len(text.test) - 1) // text.window
        kept = count if limit is None else min(limit, count)
        self._text, self._starts = text, np.arange(kept) * count // kept * text.window
        self.fingerprint = hashlib.sha256(f"{kept} held-out windows of {text.fingerprint}".encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._starts)

    def batch(self, indices: np.ndarray) -> dict[str, torch.Tensor]:
        """Inputs and targets, each (B, T) int64."""
        check_ids(indices, len(self))
        return windows(self._text.test, self._starts[indices], self._text.window)


def held_out(data: Dataset) -> Dataset | None:
    """What a learner is evaluated on that names nothing else: the held-out windows of a text, else None."""
    return HeldOut(data, LIMIT) if isinstance(data, Text) else None
