"""Vectors that the payloads of several jobs have in common, each shared with the hosts once."""

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

import numpy as np

from distseq.cluster.carried import Held

R = TypeVar("R")


class KeptVectors(Generic[R]):
    """References to vectors that are in use, by identity.

    share: makes a vector readable by every host, and returns a reference; unshare: takes it back.

    >>> kept = KeptVectors(lambda vector: len(vector), lambda reference: None)
    >>> one = Held(np.zeros(3))
    >>> kept.take(one), kept.take(one), kept.give_back([one]), len(kept)
    (3, 3, None, 1)
    """

    def __init__(self, share: Callable[[np.ndarray], R], unshare: Callable[[R], object]) -> None:
        self._share, self._unshare = share, unshare
        # The vector too: while it is here, nothing else has its identity.
        self._kept: dict[int, tuple[np.ndarray, R, int]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def take(self, fetch: Any) -> R:
        """The reference to a vector at hand, for one more payload."""
        assert isinstance(fetch, Held), "the driver has its vectors at hand"
        vector, key = fetch.vector, id(fetch.vector)
        _, reference, uses = self._kept[key] if key in self._kept else (vector, self._share(vector), 0)
        self._kept[key] = (vector, reference, uses + 1)
        return reference

    def give_back(self, fetches: Iterable[Any]) -> None:
        """Those of a payload that is not needed any more."""
        for fetch in fetches:
            vector, reference, uses = self._kept.pop(id(fetch.vector))
            if uses > 1:
                self._kept[id(vector)] = (vector, reference, uses - 1)
            else:
                self._unshare(reference)
