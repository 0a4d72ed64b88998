"""Small schemes and how many patterns conform to their straggler models, counted by exhaustive search (specs/coding.md, P2)."""

from typing import NamedTuple

from distseq.coding.schemes.m_sgc import MSGC
from distseq.coding.schemes.scheme import Scheme
from distseq.coding.schemes.sr_sgc import SRSGC


class Case(NamedTuple):
    """One scheme with J jobs, and the conforming patterns of J + T rounds for each of its models."""

    scheme: Scheme
    jobs: int
    counts: tuple[int, ...]

    @property
    def rounds(self) -> int:
        return self.jobs + self.scheme.delay

    def __str__(self) -> str:
        return f"{self.scheme.spec}-n{self.scheme.n}"


CASES = (
    Case(MSGC(4, 1, 2, 1), 3, (65, 65)),
    Case(MSGC(4, 1, 2, 2), 3, (797, 797)),
    Case(MSGC(4, 1, 2, 3), 2, (479, 479)),
    Case(MSGC(4, 1, 2, 4), 2, (625, 625)),
    Case(MSGC(3, 1, 3, 1), 3, (43, 43)),
    Case(MSGC(3, 1, 3, 2), 3, (337, 337)),
    Case(MSGC(3, 2, 3, 1), 3, (151, 127)),
    Case(MSGC(3, 2, 3, 2), 2, (1009, 1129)),
    Case(MSGC(3, 2, 3, 3), 2, (3375, 6859)),
    Case(SRSGC(4, 1, 2, 2), 3, (1093,)),
    Case(SRSGC(4, 1, 2, 3), 3, (15745,)),
    Case(SRSGC(4, 1, 3, 3), 3, (1277,)),
    Case(SRSGC(3, 1, 2, 2), 4, (1714,)),
    Case(SRSGC(3, 2, 3, 2), 3, (1684,)),
)
