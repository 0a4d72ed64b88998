"""The tables of make bench-temporal: means over seeds, and paired differences with their 95 % intervals."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import t

METRICS = ("ap", "mrr")


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and half of its 95 % interval by Student's t; NaN for fewer than two values.

    >>> [round(one, 3) for one in interval([1.0, 2.0, 3.0])]
    [2.0, 2.484]
    """
    if len(values) < 2:
        return (float(values[0]) if len(values) else math.nan), math.nan
    spread = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return float(np.mean(values)), spread * float(t.ppf(0.975, len(values) - 1))


def runs_of(done: Sequence[Mapping[str, Any]], setup: Any) -> list[Mapping[str, Any]]:
    """The runs of one setup."""
    names = ("data", "mode", "batch", "lr", "momentum", "times")
    return [run for run in done if all(run[name] == getattr(setup, name) for name in names)]


def by_seed(done: Sequence[Mapping[str, Any]], setup: Any, metric: str) -> dict[int, float]:
    """Test figures of one setup, by seed."""
    return {run["seed"]: run["test"][metric] for run in runs_of(done, setup)}


def paired(found: Mapping[int, float], other: Mapping[int, float]) -> tuple[float, float, int]:
    """The mean difference in points over seeds that both have, half of its interval, and the number of seeds.

    >>> paired({0: 0.5, 1: 0.6}, {1: 0.5, 2: 0.9})
    (10.0, nan, 1)
    """
    seeds = sorted(found.keys() & other.keys())
    mean, half = interval([round(100 * (found[seed] - other[seed]), 10) for seed in seeds])
    return mean, half, len(seeds)


def report(
    done: Sequence[Mapping[str, Any]], choices: Sequence[Any], compared: Sequence[Any], bests: Mapping[str, Any]
) -> list[str]:
    """Lines: the rates of batch 200, then each setup beside the best of them, then whether the aims are met."""
    lines = ["", "setup                                       seeds   test AP          test MRR         s/epoch"]
    for setup in [*choices, *compared]:
        found = {metric: by_seed(done, setup, metric) for metric in METRICS}
        if not found["ap"]:
            lines.append(f"{setup.name:<43} missing")
            continue
        shown = "".join("  {:.4f} +-{:.4f}".format(*interval(list(found[metric].values()))) for metric in METRICS)
        own = [run["seconds_per_epoch"] for run in runs_of(done, setup)]
        lines.append(f"{setup.name:<43} {len(found['ap']):>5} {shown}  {np.median(own):>6.1f}")
    for optimizer, best in bests.items():
        lines += ["", f"paired difference to {optimizer} at 200, points"]
        lines += [
            f"  best of three rates, on validation events: {best.name}" if best else "  the rates are not chosen yet"
        ]
        for setup in compared if best else ():
            differences = [paired(by_seed(done, setup, m), by_seed(done, best, m)) for m in METRICS]
            if not differences[0][2]:
                lines.append(f"  {setup.name:<43} missing")
                continue
            shown = "; ".join(
                f"{m.upper()} {mean:+.2f} +-{half:.2f}" for m, (mean, half, _) in zip(METRICS, differences, strict=True)
            )
            lines.append(f"  {setup.name:<43} {differences[0][2]} seeds  {shown}")
            if (
                setup.mode in ("exact", "replay")
                and setup.batch == 3200
                and setup.optimizer == "muon"
                and differences[0][2]
            ):
                least = -1.0 if optimizer == "muon" else 0.0
                met = all(mean > least for mean, _, _ in differences)
                lines.append(f"    aim above {least:g} in both: {'met' if met else 'NOT met'}")
    return lines
