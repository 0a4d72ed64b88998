"""Which mode of a large temporal batch will pay, from the statistics of a stream."""

from collections.abc import Sequence

from distseq.models.data.events.statistics import BatchStatistics

# Up to this share of pending events, `parallel` loses little. On wikipedia, trained with Muon, its MRR is .863 at batch 200 (.68
# pending), where that of `exact` is .866; at 3200 (.90 pending) it is .814, and that of `exact` .864. With Adam it already falls
# at batch 800 (.81 pending), by three points of AP.
PENDING = 0.75
# With fewer events in a level, on average, `exact` goes through a batch nearly one event after the other. On one core that still
# costs little; what is launched level by level, as on a GPU, waits. Measured streams have 7 (wikipedia at 50) to 24 (at 3200).
WIDTH = 4.0


def advice(found: Sequence[BatchStatistics]) -> str:
    """One line: up to which batch `parallel` will do, and what to use above it. The batches must ascend.

    >>> small, large = (200, 0.68, 0.63, 21.0, 38.0, 98, 9.6), (800, 0.81, 0.75, 55.5, 91.0, 150, 14.4)
    >>> print(advice([BatchStatistics(*small), BatchStatistics(*large)]))
    parallel up to batch 200, exact above it (14 events a level at batch 800); replay = 200 for models that do not fit exact
    """
    fresh = [one for one in found if one.pending <= PENDING]
    stale = [one for one in found if one.pending > PENDING]
    if not stale:
        return f"parallel will do up to batch {fresh[-1].batch}"
    if fresh:
        replay, parallel, above = (
            f"replay = {fresh[-1].batch}",
            f"parallel up to batch {fresh[-1].batch}, ",
            " above it",
        )
    else:
        replay, parallel, above = f"replay with fewer than {stale[0].batch} events", "", " at every batch"
    wide = [one for one in stale if one.width >= WIDTH]
    if not wide:
        width = f"{stale[-1].width:.1f} events a level at batch {stale[-1].batch}"
        return f"{parallel}{replay}{above}; exact has {width}, nearly one after the other"
    width = f"{wide[-1].width:.0f} events a level at batch {wide[-1].batch}"
    return f"{parallel}exact{above} ({width}); {replay} for models that do not fit exact"
