"""Baselines that change the gradients: they run only where that is asked for, and are marked wherever they are named.

`ksync` is a scheme (distseq.coding.schemes.ksync). `async` is pipelining in which a learner does not wait for itself.
"""

from dataclasses import dataclass

from distseq.coding.schemes.specification import from_words
from distseq.scheduling.pipeline import Pipeline


@dataclass(frozen=True)
class AsyncTraining:
    """Asynchronous training: A jobs of one learner are open at once, and idle workers pull their parts, a copy of each.

    A job's gradient is of the parameters at its opening. Steps are made in their order: a job that is complete before an
    earlier one waits for it, so that a gradient misses the A - 1 steps before its own at most. (Jobs taken as they complete
    would miss up to 2 (A - 1).) Source: Dean et al., "Large Scale Distributed Deep Networks", NIPS 2012; the bound as in
    Ho et al., "More Effective Distributed ML via a Stale Synchronous Parallel Parameter Server", NIPS 2013.
    """

    A: int
    parts: int = 4

    def __post_init__(self) -> None:
        if self.A < 1:
            raise ValueError(f"async needs A >= 1 open jobs of a learner: got A={self.A}")
        if self.parts < 1:
            raise ValueError(f"async needs parts >= 1: got parts={self.parts}")

    @property
    def spec(self) -> str:
        return f"async:{self.A},parts={self.parts}"

    @property
    def pipeline(self) -> Pipeline:
        return Pipeline(self.parts)


def stale_of(spec: str) -> AsyncTraining | None:
    """Parses a specification of asynchronous training; None for a scheme's. ValueError as from schemes.registry.parse."""
    if spec.strip().partition(":")[0] != "async":
        return None
    return from_words(AsyncTraining, spec, "async", "async:2,parts=8")


def allow(spec: str, exact: bool, inexact: bool) -> None:
    """ValueError for what is not exact, unless inexact training is asked for."""
    if not (exact or inexact):
        how = "it runs only with --inexact (inexact = true in [scheduler])"
        raise ValueError(f"{spec} changes the gradients, so training is not exact: {how}")


def marked(name: str, exact: bool) -> str:
    """A name to head figures with."""
    return name if exact else f"{name} (not exact)"
