"""Figures of baselines on the same events, against the same negatives, as a model's. Shapes: n events, K candidates."""

from functools import partial
from typing import Any

import numpy as np

from distseq.models.links.baselines import Scorer, edgebank, popularity
from distseq.models.links.history import History
from distseq.models.links.probe import fitted_probe
from distseq.models.links.ranking import ranks
from distseq.models.links.streaming import streamed
from distseq.models.links.uniform import uniform_negatives
from distseq.models.temporal.evaluation.candidates import Candidates
from distseq.models.temporal.evaluation.figures import figures

# The probe has eight numbers to learn: more events or negatives move none of its figures on Wikipedia's test events by .001.
FITTED, AGAINST = 20_000, 5


def baseline_figures(
    stream: Any, candidates: Candidates, training: int, *, batch: int | None = None, new: np.ndarray | None = None
) -> dict[str, dict[str, float]]:
    """The figures (without losses) of "edgebank", "popularity" and "counts", the probe of count features.

    training: the stream's first events, on the last of which the probe is fitted against uniform destinations, as models are.
    batch: events that are scored at once, from all before them; by default the protocol's, and 1 sees what mode exact sees. new:
    as in `figures`. ValueError where an evaluated event is a training event.
    """
    scored, seed = candidates.scored, candidates.protocol.seed
    size = candidates.protocol.batch if batch is None else batch
    if not 0 < training <= scored.start:
        raise ValueError(
            f"evaluation: baselines need 1 .. {scored.start} training events before those evaluated: got {training}"
        )

    def history() -> History:
        return History(stream.src, stream.dst, stream.t)

    first = max(0, training - FITTED)
    drawn = partial(_fitting, first, stream.dst, stream.destinations, seed)
    scorers: dict[str, Scorer] = {"edgebank": edgebank, "popularity": popularity}
    scorers["counts"] = fitted_probe(history(), drawn, first, training, batch=size)
    events = np.arange(scored.start, scored.stop)
    ranked, found = candidates.ranked(events), {}
    for name, scorer in scorers.items():
        got = streamed(scorer, history(), partial(_negatives, candidates), scored.start, scored.stop, batch=size)
        rank = ranks(got.positive, got.negative[:, 1:], got.valid[:, 1:])
        rows = np.stack([got.positive, got.negative[:, 0], np.where(ranked, rank, 0)], 1)
        # Scores of counts are no logits, so they have no loss.
        found[name] = {key: value for key, value in figures(rows, new=new).items() if not key.endswith("loss")}
    return found


def _fitting(first: int, dst: np.ndarray, destinations: tuple[int, int], seed: int, begin: int, end: int) -> np.ndarray:
    events = np.arange(first + begin, first + end)
    return uniform_negatives(events, destinations, AGAINST, seed=seed, avoid=np.asarray(dst[events]))


def _negatives(candidates: Candidates, begin: int, end: int) -> np.ndarray:
    """(end - begin, 1 + K): the one negative of each event, then its candidates, none where it is not ranked."""
    events = candidates.scored.start + np.arange(begin, end)
    against = np.where(candidates.ranked(events)[:, None], candidates.against(events), -1)
    return np.concatenate([candidates.paired(events)[:, None], against], 1)
