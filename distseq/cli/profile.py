"""`distseq profile`: measure a pool or a finished run and write a trace."""

from pathlib import Path
from typing import Any

import click

from distseq.cli.options import given, like


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="Trace file to write: .npz, or .csv of start-ups only.",
)
@click.option("--run", type=click.Path(path_type=Path), help="Use the delays in the journal of this run folder.")
@click.option("--pool", default="ray", show_default=True, help="Pool to measure if no --run is given: ray or local.")
@click.option("--workers", type=int, default=8, show_default=True, help="Number of workers to measure.")
@click.option("--hosts", type=int, help="Number of actors or processes that share the workers.  [default: one per CPU]")
@click.option("--address", default="", **like("address", default=True))
@click.option("--token-file", default="", **like("token_file", default=True))
@click.option("--insecure", **like("insecure") | {"default": False})
@click.option("--rounds", type=int, default=50, show_default=True, help="Messages to each worker.")
@click.option(
    "--seconds", type=float, default=0.0, show_default=True, help="Time that each worker computes for each message."
)
@click.pass_context
def profile(context: click.Context, /, out: Path, **options: Any) -> None:
    """Measure delays of workers and write them as a trace.

    Measures a pool, or reads the delays from a run. `simulate --trace` and `train --delays` read the trace.

    Example: distseq profile --run runs/main-1 --out measured.npz
    """
    from distseq.cluster.trace_csv import is_csv
    from distseq.simulation.measure import measure

    trace = measure(out=out, say=lambda line: click.echo(line, err=True), **options, given=given(context))
    rounds, workers = trace.times.shape
    click.echo(f"{out}: {rounds} invocations of each of {workers} workers, {trace.slope:.4g} s of compute per batch")
    # A CSV has no place for the slope, without which a replay would compute nothing.
    if is_csv(out) and trace.slope:
        click.echo(f"a .csv holds start-up times only: use it with --slope {trace.slope:.4g}")
