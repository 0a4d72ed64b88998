"""Generated delay profiles: tables of start-up seconds drawn from a seed, for simulation and for injection into real pools.

Each entry depends only on (profile, seed, invocation, worker count), never on the order of use.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from distseq.cluster.trace import Trace, load_trace

ROUNDS = 512
BASE = 0.6  # seconds of a usual start-up; the measured serverless fleets have about this much
SLOPE = 2.2  # seconds of compute per batch at that base


def _usual(n: int, draws: np.random.Generator) -> np.ndarray:
    """(ROUNDS, n) start-up in units of the base: a few percent of jitter."""
    return np.exp(0.08 * draws.standard_normal((ROUNDS, n)))


def _none(n: int, draws: np.random.Generator) -> np.ndarray:
    return np.zeros((ROUNDS, n))


def _bursts(n: int, draws: np.random.Generator) -> np.ndarray:
    """A two-state chain per worker: 4 % start to straggle, 60 % of stragglers recover in each round; slowed 3 to 8 times."""
    enter, leave = draws.random((ROUNDS, n)) < 0.04, draws.random((ROUNDS, n)) < 0.6
    slow = np.zeros((ROUNDS, n), dtype=bool)
    for t in range(1, ROUNDS):
        slow[t] = np.where(slow[t - 1], ~leave[t], enter[t])
    return _usual(n, draws) * np.where(slow, draws.uniform(3, 8, (ROUNDS, n)), 1.0)


def _heavy_tail(n: int, draws: np.random.Generator) -> np.ndarray:
    """Start-up with a Pareto tail of index 1.5."""
    return _usual(n, draws) * (0.8 + 0.2 * (1 + draws.pareto(1.5, (ROUNDS, n))))


def _one_slow(n: int, draws: np.random.Generator) -> np.ndarray:
    return _usual(n, draws) * np.where(np.arange(n) == 0, 6.0, 1.0)


def _half_slow(n: int, draws: np.random.Generator) -> np.ndarray:
    return _usual(n, draws) * np.where(np.arange(n) < n // 2, 3.0, 1.0)


def _spikes(n: int, draws: np.random.Generator) -> np.ndarray:
    """One invocation in a thousand takes 45 times the base: 27 s at the base of 0.6 s."""
    return _usual(n, draws) + np.where(draws.random((ROUNDS, n)) < 1e-3, 45.0, 0.0)


PROFILES: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {
    "none": _none,
    "bursts": _bursts,
    "heavy-tail": _heavy_tail,
    "one-slow": _one_slow,
    "half-slow": _half_slow,
    "spikes": _spikes,
}


def profile(name: str, n: int, seed: int, base: float = BASE) -> Trace:
    """The generated trace of a profile for n workers; `base` scales start-up and compute alike."""
    if name not in PROFILES:
        raise ValueError(f"unknown delay profile {name!r}; known: {', '.join(PROFILES)}")
    if not (np.isfinite(base) and base > 0):
        raise ValueError(f"a delay profile's base must be seconds > 0: got {base}")
    key = [seed, list(PROFILES).index(name)]
    table = PROFILES[name](n, np.random.Generator(np.random.Philox(np.random.SeedSequence(key))))
    return Trace(base * table, 0.0, SLOPE * base / BASE)


def delays(spec: str, n: int, seed: int) -> Trace:
    """The trace that `spec` names: a profile `NAME` or `NAME:base=SECONDS`, or else a trace file."""
    name, _, option = spec.partition(":")
    if name in PROFILES:
        if not option:
            return profile(name, n, seed)
        key, _, value = option.partition("=")
        try:
            base = float(value) if key == "base" else np.nan
        except ValueError:
            base = np.nan
        if np.isnan(base):
            raise ValueError(f"delay profile {spec!r}: the only option is base=SECONDS")
        return profile(name, n, seed, base)
    try:
        found = Path(spec).is_file()
    except OSError:
        found = False
    if not found:
        raise ValueError(f"delays {spec!r} is neither a profile ({', '.join(PROFILES)}) nor a trace file")
    return load_trace(Path(spec)).first(n)
