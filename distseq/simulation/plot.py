"""What `distseq simulate` has found, as a picture. The only file that imports matplotlib, which is optional."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from distseq.cluster.system.atomic_files import write_whole
from distseq.simulation.simulate import Result
from distseq.simulation.timeline import COPY, STRAGGLER, VAIN, WORK, Span

FORMATS = (".png", ".svg", ".pdf")
JOBS = 12  # whose time the workers are shown over
BARS = 24  # at most
# Okabe and Ito's colours, which everybody can tell apart.
COLOURS = {WORK: "#56b4e9", STRAGGLER: "#d55e00", COPY: "#009e73", VAIN: "#f0e442"}


def check_plot(path: Path) -> None:
    """ValueError where no picture could be written."""
    if path.suffix not in FORMATS:
        raise ValueError(f"a plot is written as {', '.join(FORMATS)}: got {path}")
    if not path.parent.is_dir():
        raise ValueError(f"cannot write plot {path}: there is no folder {path.parent}")
    if find_spec("matplotlib") is None:
        raise ValueError("a plot needs matplotlib, which is not installed: python -m pip install matplotlib")


def draw(
    path: Path, results: Sequence[Result], families: Sequence[Result], bounds: Sequence[Result], spans: Sequence[Span]
) -> None:
    """Seconds per job by scheme; workers over time under the first result, whose `spans` these are; time against busy workers.

    `results`: best first. Of many, bars show the best of each family, `families`. ValueError when the file cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = Figure(figsize=(18, 6), layout="constrained")
    by_scheme, over_time, tradeoff = figure.subplots(1, 3)

    bars = (results if len(results) <= BARS else families)[:BARS]
    by_scheme.barh([one["scheme"] for one in bars], [one["seconds_per_job"] for one in bars], color=COLOURS[WORK])
    for style, bound in zip(("--", ":", "-."), bounds, strict=False):
        by_scheme.axvline(bound["seconds_per_job"], color="black", linestyle=style, label=f"{bound['scheme']} (bound)")
    if bounds:
        by_scheme.legend()
    by_scheme.invert_yaxis()
    by_scheme.set(title="seconds per job", xlabel="seconds per job")

    best = results[0]
    end = min(JOBS, best["jobs"]) * best["seconds_per_job"]
    width = max(0.5, 250 / best["workers"])  # points
    for kind, colour in COLOURS.items():
        own = [span for span in spans if span.kind == kind and span.begun < end]
        lines = [span.worker for span in own], [span.begun for span in own], [span.ended for span in own]
        over_time.hlines(*lines, colors=colour, linewidth=width, label=kind)
    over_time.hlines([], [], [], colors="white", label="(blank) waiting")
    over_time.set(title=f"workers under {best['scheme']}", xlabel="seconds", ylabel="worker", xlim=(0, end))
    over_time.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=5, frameon=False)

    for family in dict.fromkeys(one["family"] for one in results):
        of_it = [one for one in results if one["family"] == family]
        x, y = [one["worker_seconds_per_job"] for one in of_it], [one["seconds_per_job"] for one in of_it]
        tradeoff.scatter(x, y, label=family)
    tradeoff.legend()
    tradeoff.set(title="time against work", xlabel="busy worker-seconds per job", ylabel="seconds per job")
    tradeoff.set(xscale="log", yscale="log")
    for axis in tradeoff.xaxis, tradeoff.yaxis:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    try:
        write_whole(path, lambda file: figure.savefig(file, format=path.suffix[1:]))
    except OSError as error:
        raise ValueError(f"cannot write plot {path}: {error.strerror}") from None
