"""Hypothesis strategies over everything that `coding` lists: codes, schemes, and random numbers to play them with."""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from distseq.coding.codes.registry import CODES
from distseq.coding.schemes.backup_tasks import Backup
from distseq.coding.schemes.gradient_coding import GC
from distseq.coding.schemes.ksync import KSync
from distseq.coding.schemes.m_sgc import MSGC
from distseq.coding.schemes.redispatch import Redispatch
from distseq.coding.schemes.scheme import Scheme
from distseq.coding.schemes.sr_sgc import SRSGC

PROPERTY = settings(deadline=None, derandomize=True, max_examples=60)
THOROUGH = settings(PROPERTY, max_examples=200)


def generators() -> st.SearchStrategy[np.random.Generator]:
    return st.integers(0, 2**32 - 1).map(np.random.default_rng)


@st.composite
def code_sizes(draw: st.DrawFn, max_n: int = 32) -> tuple[int, int]:
    """(n, s) of a code."""
    n = draw(st.integers(1, max_n))
    return n, draw(st.integers(0, n - 1))


def _uncoded(draw: st.DrawFn, n: int, code: str) -> Scheme:
    return GC(n, 0)


def _gc(draw: st.DrawFn, n: int, code: str) -> Scheme:
    return GC(n, draw(st.integers(1, n - 1)), draw(st.sampled_from((1, 1, 2, 3))), code)


def _srsgc(draw: st.DrawFn, n: int, code: str) -> Scheme:
    B, W = draw(st.sampled_from(((1, 2), (1, 3), (2, 3), (1, 4), (3, 4), (2, 5))))
    return SRSGC(n, B, W, draw(st.integers(1, n)), code)


def _msgc(draw: st.DrawFn, n: int, code: str) -> Scheme:
    W = draw(st.integers(2, 4))
    return MSGC(n, draw(st.integers(1, W - 1)), W, draw(st.integers(0, n)), code)


def _redispatch(draw: st.DrawFn, n: int, code: str) -> Scheme:
    return Redispatch(n, draw(st.integers(1, 3)), draw(st.sampled_from((1, 2, 3, n + 1))))


def _backup(draw: st.DrawFn, n: int, code: str) -> Scheme:
    return Backup(n, draw(st.sampled_from((1, 40, 75, 90, 99))))


def _ksync(draw: st.DrawFn, n: int, code: str) -> Scheme:
    return KSync(n, draw(st.integers(1, n)))


# by the names of distseq.coding.schemes.registry.SCHEMES; test_schemes.py checks that none is missing
BUILDERS = {
    "uncoded": _uncoded,
    "gc": _gc,
    "srsgc": _srsgc,
    "msgc": _msgc,
    "redispatch": _redispatch,
    "backup": _backup,
    "ksync": _ksync,
}


@st.composite
def schemes(draw: st.DrawFn, max_n: int = 8) -> Scheme:
    """Any scheme on a few workers, under any code."""
    build, n = BUILDERS[draw(st.sampled_from(sorted(BUILDERS)))], draw(st.integers(2, max_n))
    return build(draw, n, draw(st.sampled_from(sorted(CODES))))


def exact_schemes() -> st.SearchStrategy[Scheme]:
    """Any scheme that promises the sum over all parts."""
    return schemes().filter(lambda scheme: scheme.exact)
