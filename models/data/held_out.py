"""The held-out part of a text as a data set, for evaluation."""

import hashlib

import numpy as np
import torch

from distseq.models.data.dataset import Dataset, check_ids
from distseq.models.data.events.dataset import Events
from distseq.models.data.text import Text, windows

# Windows of a text that an evaluation uses. Evaluations run on the workers that train: more windows are more precise, and take
# these workers longer from training.
LIMIT = 512


class HeldOut:
    """Consecutive windows of a text's held-out part, or `limit` of them, evenly spaced, as samples 0 to N - 1."""

    def __init__(self, text: Text, limit: int | None = None) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"a held-out limit must be at least 1 window: got limit={limit}")
        # One character less, since the last window needs a target after its last character.
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
    """The default data set for evaluation: held-out windows of a text, the test events of a stream, else None."""
    if isinstance(data, Events):
        return data.other("test")
    return HeldOut(data, LIMIT) if isinstance(data, Text) else None
