"""Formats results of simulations and plans as aligned text."""

from collections.abc import Mapping, Sequence
from typing import Any

from distseq.scheduling.asynchronous import marked
from distseq.simulation.simulate import Result

COLUMNS = {
    "scheme": "scheme",
    "load": "load",
    "delay": "T",
    "rounds": "rounds",
    "waits": "waits",
    "total_seconds": "seconds",
    "seconds_per_job": "s/job",
    "worker_seconds_per_job": "worker-s/job",
}


def aligned(rows: Sequence[Sequence[str]], sides: str) -> list[str]:
    """One line per row, with cells padded to the width of their column; `sides`: "<" or ">" for each column.

    >>> aligned([["scheme", "s"], ["gc:1", "10"]], "<>")
    ['scheme   s', 'gc:1    10']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = [[f"{cell:{side}{w}}" for cell, side, w in zip(row, sides, widths, strict=True)] for row in rows]
    return ["  ".join(row).rstrip() for row in cells]


def table(results: Sequence[Result]) -> str:
    """Results as aligned text: what they have in common on top, then one line each, with bounds marked."""
    first = results[0]
    # Pipelines and bounds have no closing rule; all rounds of a command have the same one.
    rules = {f"closing={result['closing']}, " for result in results if "closing" in result}
    head = (
        f"{first['workers']} workers, {first['models']} models, {first['jobs']} jobs, "
        f"{''.join(rules)}unfinished={first['unfinished']}"
    )
    rows = [list(COLUMNS.values())]
    for result in results:
        name = marked(result["scheme"], result.get("exact", True)) + (" (bound)" if "bound" in result else "")
        rows.append([_cell((result | {"scheme": name}).get(key, "-")) for key in COLUMNS])
    lines = [head, *aligned(rows, "<" + ">" * (len(COLUMNS) - 1))]
    for result in results:
        if "impossible" in result:
            lines.append(f"{result['scheme']} is impossible: {result['impossible']}")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def lines(found: Mapping[str, Any]) -> list[str]:
    """A plan as aligned text, line by line."""
    seen = found["evidence"]
    head = [
        f"{found['workers']} workers, {found['models']} models, unfinished={found['unfinished']}: best by "
        f"{found['objective']} is {found['chosen']}",
        f"start-up {seen['median']:.3g} s (fast {seen['fast']:.3g}, slowest hundredth {seen['slowest_hundredth']:.3g}), "
        f"compute {seen['compute_per_batch']:.3g} s per batch, "
        f"{seen['events']} events of 10 s or more, {seen['events_per_invocation']:.1g} per invocation expected",
    ]
    rows = [["family", "candidate", "s/job", "worker-s/job", "MB/job", "dollars/job"]]
    for one in found["candidates"]:
        # Unknown without --parameters: a dash says so better than 0 would.
        sent = one["bytes"] / 1e6 if "bytes" in one else None
        figures = [one["seconds"], one["worker_seconds"], sent, one.get("dollars")]
        rows.append([one["family"], one["candidate"], *("-" if f is None else f"{f:.4g}" for f in figures)])
    return head + aligned(rows, "<" * len(rows[0]))
