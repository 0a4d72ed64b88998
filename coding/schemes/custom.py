"""Loads a user's own scheme, a subclass of Scheme that a specification names by import string."""

import re

from distseq.coding.factory import is_standard
from distseq.coding.import_string import load_object
from distseq.coding.schemes.scheme import Scheme
from distseq.coding.schemes.specification import example_of, from_words

# The values of built-in schemes are numbers, so that NAME:VALUE, also with a mistyped name, never has this form.
FORM = re.compile(r"\s*([A-Za-z_][\w.]*:[A-Za-z_]\w*)(?=\s*$|:)")
# Methods that a scheme must define if its jobs last longer than one round: the defaults are those of a single round.
OF_A_DELAY = ("assign", "shortage", "within")


def import_string_of(spec: str) -> str | None:
    """The `module:Class` at the start of a specification; None if it does not have that form."""
    found = FORM.match(spec)
    return None if found is None else found[1]


def custom_scheme(spec: str, n: int) -> Scheme:
    """The scheme that `module:Class[:VALUE,...[,KEY=VALUE,...]]` specifies, on n workers.

    ValueError if there is no such class, it is not a Scheme, the values are not its fields, or its properties contradict each
    other.
    """
    target = import_string_of(spec)
    assert target is not None, spec
    kind = _class_of(spec, target)
    example = example_of(kind, target)
    try:
        scheme = from_words(kind, spec, target, example, n=n)
    # Python's own message names the abstract property that is missing.
    except TypeError as error:
        raise ValueError(f"scheme {spec!r}: {error}") from None
    _check(spec, scheme)
    # Hosts and resumed runs rebuild the scheme from its specification; if that gave another one, they would cut batches
    # differently.
    own = import_string_of(scheme.spec)
    if own is None or from_words(_class_of(scheme.spec, own), scheme.spec, own, example, n=n) != scheme:
        raise ValueError(f"scheme {spec!r}: its property spec must specify the same scheme: got {scheme.spec!r}")
    return scheme


def _class_of(spec: str, target: str) -> type[Scheme]:
    # On a host, __main__ is the worker's own program.
    if target.startswith("__main__:"):
        raise ValueError(f"scheme {spec!r}: hosts cannot import __main__; put the class into a module of its own")
    # Not even imported: some modules of the standard library do something when they are.
    if is_standard(target.partition(":")[0]):
        raise ValueError(f"scheme {spec!r}: {target} is of the standard library, which has no schemes")
    try:
        kind = load_object(target)
    except ValueError as error:
        raise ValueError(f"scheme {spec!r}: {error}") from error
    if not (isinstance(kind, type) and issubclass(kind, Scheme)):
        raise ValueError(f"scheme {spec!r}: {target} is not a subclass of distseq.coding.schemes.scheme.Scheme")
    return kind


def _check(spec: str, scheme: Scheme) -> None:
    """ValueError unless groups, codes and shares fit together, and a scheme with a delay defines the methods of OF_A_DELAY."""
    groups = len(scheme.tolerance)
    if not groups:
        raise ValueError(f"scheme {spec!r} needs at least one group: its tolerance is empty")
    codes, shares = scheme.codes, scheme.shares
    if not groups == len(codes) == len(shares) or sum(shares) != 1:
        raise ValueError(
            f"scheme {spec!r} needs a code and a share for each group, and shares that add up to 1: got {groups} "
            f"groups, {len(codes)} codes and {len(shares)} shares that add up to {sum(shares)}"
        )
    for code in codes:
        if code.n != scheme.n:
            raise ValueError(f"scheme {spec!r} needs codes for n={scheme.n} workers: got one for {code.n}")
    # Found out here: the defaults would run, and silently lose what is missing at the end of the first round.
    lacking = [name for name in OF_A_DELAY if getattr(type(scheme), name) is getattr(Scheme, name)]
    if scheme.delay and lacking:
        raise ValueError(f"scheme {spec!r}: with a delay of {scheme.delay} it must define {', '.join(lacking)}")
