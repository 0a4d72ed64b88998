"""Generated delay profiles: seeded tables of start-up seconds, for simulations and real pools.

An entry depends only on (profile, seed, invocation, number of workers), never on the order in which entries are used.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from distseq.cluster.trace import Trace, load_trace

# Invocations of a worker before its column repeats: long enough that most simulated runs do not see the repetition.
ROUNDS = 512
# Seconds of a usual start-up, and of computing a whole batch: those of the recorded trace of 256 serverless workers that the
# figures in docs/benchmarks.md are of (its slope is 2.2013).
BASE = 0.6
LONGEST = 1e6  # base: longer ones, eleven days, are typing errors
SLOPE = 2.2


def _usual(n: int, draws: np.random.Generator) -> np.ndarray:
    """(ROUNDS, n) start-up in units of the base, with 8 % log-normal jitter."""
    # Log-normal, so that no start-up is negative.
    return np.exp(0.08 * draws.standard_normal((ROUNDS, n)))


def _none(n: int, draws: np.random.Generator) -> np.ndarray:
    return np.zeros((ROUNDS, n))


def _bursts(n: int, draws: np.random.Generator) -> np.ndarray:
    """A two-state Markov chain per worker, the Gilbert-Elliott model: stragglers are 3 to 8 times slower."""
    # 4 % start to straggle and 60 % of stragglers recover in each round, so .04 / .64 = 6 % straggle at a time, in short bursts.
    enter, leave = draws.random((ROUNDS, n)) < 0.04, draws.random((ROUNDS, n)) < 0.6
    # All draws before the loop, so that they do not depend on which workers are slow.
    slow = np.zeros((ROUNDS, n), dtype=bool)
    for t in range(1, ROUNDS):
        slow[t] = np.where(slow[t - 1], ~leave[t], enter[t])
    return _usual(n, draws) * np.where(slow, draws.uniform(3, 8, (ROUNDS, n)), 1.0)


def _heavy_tail(n: int, draws: np.random.Generator) -> np.ndarray:
    """Start-up with a Pareto tail of index 1.5."""
    # An index between 1 and 2 has a mean but no variance: means over a run never settle, which is what this profile is for.
    return _usual(n, draws) * (0.8 + 0.2 * (1 + draws.pareto(1.5, (ROUNDS, n))))


def _one_slow(n: int, draws: np.random.Generator) -> np.ndarray:
    return _usual(n, draws) * np.where(np.arange(n) == 0, 6.0, 1.0)


def _half_slow(n: int, draws: np.random.Generator) -> np.ndarray:
    return _usual(n, draws) * np.where(np.arange(n) < n // 2, 3.0, 1.0)


def _spikes(n: int, draws: np.random.Generator) -> np.ndarray:
    """One invocation in a thousand takes 45 times the base longer: 27 s at the base of 0.6 s."""
    # Recorded serverless traces have events of 25-40 s at rates of 3e-4 to 8e-3, which decide long runs (docs/decisions/012).
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
    """The generated trace of a profile for n workers. `base`, in seconds, scales start-up and compute alike.

    ValueError for an unknown profile or a base that is not in (0, LONGEST].
    """
    if name not in PROFILES:
        raise ValueError(f"unknown delay profile {name!r}; known: {', '.join(PROFILES)}")
    if not 0 < base <= LONGEST:
        raise ValueError(f"a delay profile's base must be seconds > 0, and at most {LONGEST:g}: got {base}")
    key = [seed, list(PROFILES).index(name)]
    # The profile's position is part of the key, so that two profiles of one seed do not share their draws.
    table = PROFILES[name](n, np.random.Generator(np.random.Philox(np.random.SeedSequence(key))))
    return Trace(base * table, 0.0, SLOPE * base / BASE)


def delays(spec: str, n: int, seed: int) -> Trace:
    """The trace of n workers that `spec` names: a profile `NAME` or `NAME:base=SECONDS`, or else a trace file.

    ValueError if it is neither.
    """
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
    # A mistyped specification may be too long or hold characters that no file name can.
    except OSError:
        found = False
    if not found:
        raise ValueError(f"delays {spec!r} is neither a profile ({', '.join(PROFILES)}) nor a trace file")
    return load_trace(Path(spec)).first(n)
