"""`distseq simulate`: compare ways of scheduling on a trace, in virtual time."""

import json
from pathlib import Path
from typing import Any

import click


@click.command()
@click.option(
    "--trace",
    type=click.Path(path_type=Path),
    help="Trace file: .npz, or .csv with a column for each worker.",
)
@click.option("--profile", help="Generated delays, NAME[:base=SECONDS], in place of a trace.")
@click.option("--slope", type=float, metavar="SECONDS", help="Of compute per batch, in place of the trace's.")
@click.option("--scheme", "schemes", multiple=True, help="May be given several times: best first.")
@click.option("--sweep", is_flag=True, help="Try a grid of every family of schemes instead: the best of each.")
@click.option("--inexact", is_flag=True, help="Take schemes that change the gradients: ksync:K, async:A[,parts=P].")
@click.option(
    "--scheduler", help="auto, rounds, or pipeline, beside the schemes.  [default: auto; rounds with a scheme]"
)
@click.option("--parts", multiple=True, type=int, help="pipeline: parts of a job; several times: each.  [default: 4]")
@click.option(
    "--copies", multiple=True, type=int, help="pipeline: copies of a part; several times: each.  [default: 2]"
)
@click.option("--lanes", multiple=True, type=int, help="pipeline: sets of workers; several times: each.  [default: 1]")
@click.option("--burst", type=int, help="pipeline: parts that may share a message.  [default: 1]")
@click.option("--places", type=int, default=0, help="pipeline, auto: workers that have a part's data.  [default: all]")
@click.option("--objective", default="seconds", show_default=True, help="auto: seconds, worker-seconds or price.")
@click.option(
    "--prices", "price", metavar="KEY=DOLLARS,...", help="auto: of worker_second, held_second, message, gigabyte."
)
@click.option("--closing", default="safe", show_default=True, help="When a round ends: safe or mu.")
@click.option("--cutoff", type=float, default=0.0, show_default=True, help="closing=safe: not before so many seconds.")
@click.option(
    "--mu", type=float, default=1.0, show_default=True, help="closing=mu: not before 1 + MU times the fastest."
)
@click.option("--unfinished", default="lost", show_default=True, help="Unfinished workers: lost, overlap or serial.")
@click.option(
    "--arrival", default="scheme", show_default=True, help="Rows of a message: row, message, or as the scheme says."
)
@click.option("--bounds", is_flag=True, help="Also least seconds, of schedulers that know every start-up time.")
@click.option("--models", type=int, default=4, show_default=True)
@click.option("--jobs", type=int, default=80, show_default=True, help="Of all models together.")
@click.option("--workers", type=int, help="First so many columns of the trace.  [default: all; 256 for a profile]")
@click.option("--seed", type=int, default=0, show_default=True, help="Of a generated profile.")
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also draw them, and the workers over time under the best: .png, .svg or .pdf.",
)
@click.option("--json", "as_json", is_flag=True, help="Print an object, or a list for several; of a sweep all.")
def simulate(**options: Any) -> None:
    """Seconds per job of schemes on a trace, in virtual time; nothing is learned.

    Example: distseq simulate --profile bursts

    Example: distseq simulate --profile bursts --scheme uncoded --scheme gc:3 --scheme msgc:1,2,27

    Example: distseq simulate --profile bursts --scheduler pipeline --parts 8 --parts 16 --copies 1 --copies 2

    Example: distseq simulate --profile bursts --sweep --bounds --slope 20 --plot bursts.svg
    """
    from distseq.simulation.compare import simulate_schemes

    results = simulate_schemes(**{k: v for k, v in options.items() if k != "as_json"})
    if options["as_json"]:
        click.echo(json.dumps(results[0] if len(results) == 1 else results))
    else:
        from distseq.simulation.compare import best_of_families
        from distseq.simulation.tables import table

        click.echo(table(best_of_families(results) if options["sweep"] else results))
