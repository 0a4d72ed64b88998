"""Draws the results of `distseq simulate`. The only file that imports matplotlib, which is optional."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from distseq.cluster.system.atomic_files import write_whole
from distseq.simulation.simulate import Result
from distseq.simulation.timeline import COPY, STRAGGLER, VAIN, WORK, Span

FORMATS = (".png", ".svg", ".pdf")
JOBS = 12  # jobs during which the workers are shown: more would make the spans too thin to see
BARS = 24  # most bars that are legible beside each other
# From the palette of Okabe and Ito, which colour-blind readers can tell apart, too.
COLOURS = {WORK: "#56b4e9", STRAGGLER: "#d55e00", COPY: "#009e73", VAIN: "#f0e442"}


def check_plot(path: Path) -> None:
    """ValueError when a plot could not be written to `path`, before anything is simulated."""
    if path.suffix not in FORMATS:
        raise ValueError(f"a plot is written as {', '.join(FORMATS)}: got {path}")
    if not path.parent.is_dir():
        raise ValueError(f"cannot write plot {path}: there is no folder {path.parent}")
    if find_spec("matplotlib") is None:
        raise ValueError("a plot needs matplotlib, which is not installed: python -m pip install matplotlib")
    # Imported now: an installation that is broken would show only after the simulation.
    import matplotlib.figure  # noqa: F401


def draw(
    path: Path, results: Sequence[Result], families: Sequence[Result], bounds: Sequence[Result], spans: Sequence[Span]
) -> None:
    """Draws three charts: seconds per job by scheme, workers over time under the best, and seconds against worker-seconds.

    results: best first; of more than BARS, the first chart shows only the best of each family, `families`.
    bounds: drawn as lines in the first chart. spans: what the workers did under results[0].
    ValueError when the file cannot be written.
    """
    from matplotlib.figure import Figure

    # What is impossible has no seconds to draw.
    results, families = ([one for one in some if "impossible" not in one] for some in (results, families))

    figure = Figure(figsize=(18, 6), layout="constrained")
    by_scheme, over_time, tradeoff = figure.subplots(1, 3)
    _draw_bars(by_scheme, (results if len(results) <= BARS else families)[:BARS], bounds)
    _draw_spans(over_time, results[0], spans)
    _draw_tradeoff(tradeoff, results)
    try:
        write_whole(path, lambda file: figure.savefig(file, format=path.suffix[1:]))
    except OSError as error:
        raise ValueError(f"cannot write plot {path}: {error.strerror}") from None


def _draw_bars(axes: Any, bars: Sequence[Result], bounds: Sequence[Result]) -> None:
    """Seconds per job of each scheme, best on top, with the bounds as vertical lines."""
    axes.barh([one["scheme"] for one in bars], [one["seconds_per_job"] for one in bars], color=COLOURS[WORK])
    for style, bound in zip(("--", ":", "-."), bounds, strict=False):
        axes.axvline(bound["seconds_per_job"], color="black", linestyle=style, label=f"{bound['scheme']} (bound)")
    if bounds:
        axes.legend()
    axes.invert_yaxis()
    axes.set(title="seconds per job", xlabel="seconds per job")


def _draw_spans(axes: Any, best: Result, spans: Sequence[Span]) -> None:
    """What each worker did during the first JOBS jobs."""
    end = min(JOBS, best["jobs"]) * best["seconds_per_job"]
    # In points: lines of neighbouring workers touch, and hundreds of workers still fit.
    width = max(0.5, 250 / best["workers"])
    for kind, colour in COLOURS.items():
        own = [span for span in spans if span.kind == kind and span.begun < end]
        lines = [span.worker for span in own], [span.begun for span in own], [span.ended for span in own]
        axes.hlines(*lines, colors=colour, linewidth=width, label=kind)
    axes.hlines([], [], [], colors="white", label="(blank) waiting")
    axes.set(title=f"workers under {best['scheme']}", xlabel="seconds", ylabel="worker", xlim=(0, end))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=5, frameon=False)


def _draw_tradeoff(axes: Any, results: Sequence[Result]) -> None:
    """Seconds against busy worker-seconds per job, a colour for each family."""
    from matplotlib.ticker import LogLocator, NullFormatter

    for family in dict.fromkeys(one["family"] for one in results):
        of_it = [one for one in results if one["family"] == family]
        x, y = [one["worker_seconds_per_job"] for one in of_it], [one["seconds_per_job"] for one in of_it]
        axes.scatter(x, y, label=family)
    axes.legend()
    axes.set(title="time against work", xlabel="busy worker-seconds per job", ylabel="seconds per job")
    # Schemes differ by factors of up to a hundred in both.
    axes.set(xscale="log", yscale="log")
    for axis in axes.xaxis, axes.yaxis:
        # matplotlib's own ticks are powers of ten, of which a plot may show a single one.
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
