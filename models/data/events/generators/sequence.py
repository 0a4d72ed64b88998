"""Users who go through the categories of items in an order of their own, and never take an item twice.

As in the data sets of TGB-Seq (Yi et al. 2025): no edge repeats, so what was seen tells nothing, and the next item follows from
the order of the last ones.
"""

import numpy as np

from distseq.models.data.events.data import EventData
from distseq.models.data.events.stream import EventStream

# Visits of a category, as a share of its items, up to which items that are not taken yet are found by drawing again.
FULL = 0.75


def sequence(
    events: int = 40_000,
    users: int = 400,
    items: int = 1150,
    categories: int = 23,
    strides: int = 3,
    jump: float = 0.1,
    features: int = 0,
    seed: int = 0,
) -> EventData:
    """Events user -> item; users have the ids 0 to users - 1, items those after.

    Each item belongs to one hidden category of equal size. A user has a hidden stride g, one of the `strides` smallest numbers
    that share no factor with `categories`, and goes from category c to c + g (modulo categories); with probability `jump` the
    user goes on from a random category instead. The item is drawn among those of the category that the user has not had. So two
    items in a row tell the category of the next one, one item leaves `strides` of them, and which items a user has had, without
    their order, tells little.

    features: message (E, features), a fixed normal vector of the item's category plus as much noise; 0 makes none, and only the
    numbers of the items tell them apart. ValueError for sizes that do not fit.
    """
    _check(events, users, items, categories, strides, jump, features)
    draws = np.random.default_rng(seed)
    category_of = draws.permutation(np.arange(items) % categories)
    # (categories, items of one), the items of each category.
    items_of = np.argsort(category_of, kind="stable").reshape(categories, -1)
    src = draws.choice(users, events, p=_activity(draws, users))
    coprime = [g for g in range(1, categories) if np.gcd(g, categories) == 1]
    stride = draws.choice(coprime[:strides], users)
    category = _walk(draws, src, stride, categories, jump)
    visits = int((_occurrence(src * categories + category)).max()) + 1
    if visits > FULL * items_of.shape[1]:
        raise ValueError(
            f"sequence needs more items: a user takes {visits} of the {items_of.shape[1]} of one category, and at most "
            f"{FULL:.0%} may be taken; got events={events}, users={users}, items={items}, categories={categories}"
        )
    item = _new_items(draws, src, category, items_of)
    t = np.cumsum(draws.geometric(0.1, events))
    message = None
    if features:
        codes = draws.standard_normal((categories, features))
        message = (codes[category] + draws.standard_normal((events, features))).astype(np.float32)
    everything = users + items
    return EventData(EventStream(src, users + item, t, message, nodes=everything, destinations=(users, everything)))


def _check(events: int, users: int, items: int, categories: int, strides: int, jump: float, features: int) -> None:
    sizes = {"events": events, "users": users, "items": items, "categories": categories, "strides": strides}
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"sequence needs {name} >= 1: got {size}")
    if items % categories:
        raise ValueError(f"sequence needs a multiple of categories={categories} as items: got {items}")
    coprime = sum(np.gcd(g, categories) == 1 for g in range(1, categories))
    if strides > coprime:
        raise ValueError(f"sequence has {coprime} strides for categories={categories}: got strides={strides}")
    if not 0 <= jump <= 1:
        raise ValueError(f"sequence needs a jump in 0 .. 1: got {jump}")
    if features < 0:
        raise ValueError(f"sequence needs features >= 0: got {features}")


def _activity(draws: np.random.Generator, users: int) -> np.ndarray:
    """(users,) shares of the events: some users are several times as active as others."""
    weights = draws.gamma(4.0, size=users)
    return np.asarray(weights / weights.sum())


def _walk(draws: np.random.Generator, src: np.ndarray, stride: np.ndarray, categories: int, jump: float) -> np.ndarray:
    """(E,) the category of each event: each user's walks from random categories."""
    order = np.argsort(src, kind="stable")
    user = src[order]
    first = np.r_[True, user[1:] != user[:-1]] | (draws.random(len(src)) < jump)
    starts = np.flatnonzero(first)
    walk = np.cumsum(first) - 1
    steps = np.arange(len(src)) - starts[walk]
    found = np.empty(len(src), np.int64)
    found[order] = (draws.integers(categories, size=len(starts))[walk] + stride[user] * steps) % categories
    return found


def _occurrence(values: np.ndarray) -> np.ndarray:
    """(E,) how often the value of each place has occurred before."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    count = np.arange(len(values)) - np.repeat(starts, np.diff(np.r_[starts, len(values)]))
    found = np.empty(len(values), np.int64)
    found[order] = count
    return found


def _new_items(draws: np.random.Generator, src: np.ndarray, category: np.ndarray, items_of: np.ndarray) -> np.ndarray:
    """(E,) items of the categories, none twice for a user."""
    per = items_of.shape[1]
    item = items_of[category, draws.integers(per, size=len(src))]
    # At most FULL of a category is taken, so that a drawing fails at most that often, and the repeats soon die out.
    while len(again := np.flatnonzero(_occurrence(src * items_of.size + item))):
        item[again] = items_of[category[again], draws.integers(per, size=len(again))]
    return np.asarray(item)
