"""Schemes of the user's own: a subclass of Scheme that a specification names by its import string."""

import re

from distseq.coding.import_string import load_object
from distseq.coding.schemes.scheme import Scheme
from distseq.coding.schemes.specification import example_of, from_words

FORM = re.compile(r"\s*([A-Za-z_][\w.]*:[A-Za-z_]\w*)(?=\s*$|:)")
# What a scheme whose jobs last longer than a round decides for itself; the defaults are those of one round.
OF_A_DELAY = ("assign", "shortage", "within")


def import_string_of(spec: str) -> str | None:
    """The `module:Class` that a specification begins with, if it has that form."""
    found = FORM.match(spec)
    return None if found is None else found[1]


def custom_scheme(spec: str, n: int) -> Scheme:
    """The scheme of `module:Class[:VALUE,...[,KEY=VALUE,...]]` on n workers.

    ValueError where there is no such class, it is not a Scheme, the values are not its fields, or what it says of itself
    does not fit together.
    """
    target = import_string_of(spec)
    assert target is not None, spec
    kind = _class_of(spec, target)
    example = example_of(kind, target)
    try:
        scheme = from_words(kind, spec, target, example, n=n)
    except TypeError as error:  # an abstract property is missing
        raise ValueError(f"scheme {spec!r}: {error}") from None
    _check(spec, scheme)
    own = import_string_of(scheme.spec)
    if own is None or from_words(_class_of(scheme.spec, own), scheme.spec, own, example, n=n) != scheme:
        raise ValueError(f"scheme {spec!r}: its spec, {scheme.spec!r}, does not give it back")
    return scheme


def _class_of(spec: str, target: str) -> type[Scheme]:
    if target.startswith("__main__:"):
        raise ValueError(f"scheme {spec!r}: hosts cannot import __main__; put the class into a module of its own")
    try:
        kind = load_object(target)
    except Exception as error:  # importing runs the user's code, which may raise anything
        why = (
            str(error)
            if isinstance(error, ValueError)
            else f"cannot import {target!r}: {type(error).__name__}: {error}"
        )
        raise ValueError(f"scheme {spec!r}: {why}") from error
    if not (isinstance(kind, type) and issubclass(kind, Scheme)):
        raise ValueError(f"scheme {spec!r}: {target} is not a subclass of distseq.coding.schemes.scheme.Scheme")
    return kind


def _check(spec: str, scheme: Scheme) -> None:
    """Whether groups, codes and shares fit together, and a scheme with a delay says how its rounds go."""
    groups = len(scheme.tolerance)
    if not groups:
        raise ValueError(f"scheme {spec!r}: it needs at least one group: its tolerance is empty")
    codes, shares = scheme.codes, scheme.shares
    if not groups == len(codes) == len(shares) or sum(shares) != 1:
        raise ValueError(
            f"scheme {spec!r}: it needs a code and a share for each group, and shares that add up to one: got {groups} "
            f"groups, {len(codes)} codes and {len(shares)} shares that add up to {sum(shares)}"
        )
    for code in codes:
        if code.n != scheme.n:
            raise ValueError(f"scheme {spec!r}: a code for {code.n} workers, not {scheme.n}")
    lacking = [name for name in OF_A_DELAY if getattr(type(scheme), name) is getattr(Scheme, name)]
    if scheme.delay and lacking:
        raise ValueError(f"scheme {spec!r}: with a delay of {scheme.delay} it must define {', '.join(lacking)}")
