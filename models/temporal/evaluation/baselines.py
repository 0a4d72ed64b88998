"""Figures of baselines on the same events, against the same negatives, as a model's. Shapes: n events, K candidates."""

from functools import partial
from typing import Any

import numpy as np

from distseq.models.links.baselines import Scorer, edgebank, popularity
from distseq.models.links.past import Past, scored
from distseq.models.links.probe import Probe, features, logistic
from distseq.models.links.ranking import ranks
from distseq.models.links.uniform import uniform_negatives
from distseq.models.temporal.evaluation.candidates import Candidates
from distseq.models.temporal.evaluation.figures import figures

# Of the fit of the probe, which has eight numbers to learn. On Wikipedia's test events its MRR is .860; fitted to five times as
# many events, which are older, .853, and against 50 negatives each .861, in twice the time.
FITTED, AGAINST = 20_000, 5


def baseline_figures(
    stream: Any, candidates: Candidates, training: int, *, batch: int | None = None, new: np.ndarray | None = None
) -> dict[str, dict[str, float]]:
    """The figures (without losses) of "edgebank", "popularity" and "counts", the probe of count features.

    training: the stream's first events, on the last of which the probe is fitted against uniform destinations, as models are.
    batch: events that are scored at once, from all before them; by default the protocol's, and 1 sees what mode exact sees. new:
    as in `figures`. ValueError where an evaluated event is a training event.
    """
    events = np.array(candidates.scored)
    begin, end = candidates.scored.start, candidates.scored.stop
    size = candidates.protocol.batch if batch is None else batch
    if not 0 < training <= begin:
        raise ValueError(
            f"evaluation: baselines need 1 .. {begin} training events before those evaluated: got {training}"
        )
    past, found = Past(stream.src, stream.dst, stream.t), {}
    fitted = _fitted(past, training, stream.destinations, candidates.protocol.seed, size)
    # The method, because mypy does not see that a NamedTuple can be called.
    scorers: dict[str, Scorer] = {"edgebank": edgebank, "popularity": popularity, "counts": fitted.__call__}
    for name, scorer in scorers.items():
        got = scored(scorer, past, partial(_negatives, candidates), begin, end, batch=size)
        rank = ranks(got.positive, got.negative[:, 1:], got.valid[:, 1:])
        rows = np.stack([got.positive, got.negative[:, 0], np.where(candidates.ranked(events), rank, 0)], 1)
        # Counts are no logits, so they have no loss.
        found[name] = {key: value for key, value in figures(rows, new=new).items() if not key.endswith("loss")}
    return found


def _fitted(past: Past, training: int, destinations: tuple[int, int], seed: int, batch: int) -> Probe:
    """The probe, as distseq.models.links.probe.fitted_probe fits it to the last training events."""
    first = max(0, training - FITTED)
    events = np.arange(first, training)
    own = past.dst[events]
    drawn = uniform_negatives(events, destinations, AGAINST, seed=seed, avoid=own)
    candidates = np.concatenate([own[:, None], drawn], 1)
    seen = past.before(first + (events - first) // batch * batch)
    happened = np.zeros(candidates.shape, bool)
    happened[:, 0] = True
    examples = features(seen, past.src[events], candidates, past.t[events])
    return logistic(examples.reshape(-1, examples.shape[2]), happened.ravel())


def _negatives(candidates: Candidates, begin: int, end: int) -> np.ndarray:
    """(end - begin, 1 + K): the one negative of each event, then its candidates, none where it is not ranked."""
    events = candidates.scored.start + np.arange(begin, end)
    against = np.where(candidates.ranked(events)[:, None], candidates.against(events), -1)
    return np.concatenate([candidates.paired(events)[:, None], against], 1)
