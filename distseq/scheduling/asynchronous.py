"""Asynchronous training: a baseline with stale gradients, refused unless inexact training is allowed.

Two baselines change the gradients: `ksync`, a scheme (distseq.coding.schemes.ksync), and `async`, a pipeline in which a learner
opens its next job before the previous one is applied. Both are refused without --inexact and marked "(not exact)" wherever they
are named (docs/decisions/013).
"""

from dataclasses import dataclass

from distseq.coding.schemes.specification import from_words
from distseq.scheduling.pipeline import Pipeline


@dataclass(frozen=True)
class AsyncTraining:
    """Asynchronous training: A jobs of each learner are open at once, and idle workers pull their parts, one copy of each.

    A gradient is taken at the parameters of its job's opening. Steps are made in order: a job that completes before an earlier
    one waits for it, so gradients are at most A - 1 steps stale. (Applied as they complete, they would be up to 2 (A - 1) steps
    stale, docs/decisions/013.) Source: Dean et al., "Large Scale Distributed Deep Networks", NIPS 2012; the bound as in Ho et
    al., "More Effective Distributed ML via a Stale Synchronous Parallel Parameter Server", NIPS 2013.

    A: jobs of a learner that are open at once; parts: parts per job. ValueError unless both are >= 1.
    """

    A: int
    parts: int = 4

    def __post_init__(self) -> None:
        if self.A < 1:
            raise ValueError(f"async needs A >= 1 open jobs per learner: got A={self.A}")
        if self.parts < 1:
            raise ValueError(f"async needs parts >= 1: got parts={self.parts}")

    @property
    def spec(self) -> str:
        return f"async:{self.A},parts={self.parts}"

    @property
    def pipeline(self) -> Pipeline:
        return Pipeline(self.parts)


def parse_async(spec: str) -> AsyncTraining | None:
    """Parses `async:A[,parts=P]`; None for the specification of a scheme. ValueError as from schemes.registry.parse.

    >>> parse_async("async:2,parts=8")
    AsyncTraining(A=2, parts=8)
    """
    if spec.strip().partition(":")[0] != "async":
        return None
    return from_words(AsyncTraining, spec, "async", "async:2,parts=8")


def allow(spec: str, exact: bool, inexact: bool) -> None:
    """ValueError for `spec` if it is not exact, unless `inexact` training was requested."""
    if not (exact or inexact):
        how = "it runs only with --inexact (inexact = true in [scheduler])"
        raise ValueError(f"{spec} changes the gradients, so training is not exact: {how}")


def marked(name: str, exact: bool) -> str:
    """`name`, followed by "(not exact)" unless `exact`: so that no figure of an inexact run passes for an exact one."""
    return name if exact else f"{name} (not exact)"
