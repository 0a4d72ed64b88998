"""Negatives drawn uniformly from the destinations, and those that a benchmark has published. Shapes: n events, K negatives."""

from pathlib import Path

import numpy as np

from distseq.models.links.keyed import bits, whole_numbers


def uniform_negatives(
    events: np.ndarray,
    destinations: tuple[int, int],
    count: int = 1,
    *,
    seed: int,
    epoch: int = 0,
    avoid: np.ndarray | None = None,
    without_last: bool = False,
) -> np.ndarray:
    """(n, count) int64 destinations in [first, past), drawn with replacement and keyed by event: TGN's for training and AP.

    events: (n,) ids of the events, such as their indices in the stream. destinations: (first, one past the last).
    avoid: (n,) the events' own destinations, which are then never drawn, as in TGB-Seq; else collisions are allowed, as in TGN.
    without_last: leaves out the last destination, as TGB-Seq's published generator does by mistake, to compare with its figures.
    ValueError if nothing is left to draw.

    >>> uniform_negatives(np.arange(3), (5, 7), 2, seed=0, avoid=np.array([5, 6, 5]))
    array([[6, 6],
           [5, 5],
           [6, 6]])
    """
    first, past = destinations
    past -= without_last
    events = np.asarray(events, np.int64)
    own = np.full(len(events), first - 1) if avoid is None else np.asarray(avoid, np.int64)
    taken = (own >= first) & (own < past)
    size = past - first - taken
    if count < 1 or (len(size) and size.min() < 1):
        raise ValueError(
            f"no negative can be drawn: count={count}, destinations {first} .. {past - 1}, one of them taken"
        )
    drawn = first + whole_numbers(bits(seed, epoch, events[:, None], np.arange(count)), size[:, None])
    # Ids from its own on move up by one: uniform over the others, without drawing again.
    return drawn + (taken[:, None] & (drawn >= own[:, None]))


def published_negatives(path: str | Path, rows: int, nodes: int) -> np.ndarray:
    """(rows, K) integers of a .npy file, mapped from it: row i holds the negatives of the i-th test event.

    ValueError, naming the file, if it can't be read, has another shape, or holds ids that are not in 0 .. nodes - 1.
    """
    where = f"negatives {str(path)!r}"
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise ValueError(f"can't read {where}: {error.strerror or error}") from None
    except (ValueError, EOFError) as error:
        raise ValueError(f"can't read {where}: {' '.join(str(error).splitlines()[:1])}") from None
    if not isinstance(found, np.ndarray) or found.ndim != 2 or found.dtype.kind not in "iu" or len(found) != rows:
        shape = f"{found.dtype} {found.shape}" if isinstance(found, np.ndarray) else "an archive"
        raise ValueError(f"{where} must hold whole numbers ({rows}, K), a row for each test event: got {shape}")
    outside = ((found < 0) | (found >= nodes)).any(1)
    if outside.any():
        row = int(np.argmax(outside))
        raise ValueError(f"{where}: row {row} holds an id that is not in 0 .. {nodes - 1}")
    return found
