"""`distseq simulate`: compare ways of scheduling on a trace, in virtual time."""

import json
from pathlib import Path
from typing import Any

import click

from distseq.cli.json_output import only_json
from distseq.cli.options import given, like

COMPARE = "Repeat to compare several."


@click.command()
@click.option(
    "--trace",
    type=click.Path(path_type=Path),
    help="Trace file: .npz, or .csv with a column for each worker.",
)
@click.option("--profile", help="Generated delays, NAME[:base=SECONDS], in place of a trace.")
@click.option("--slope", type=float, metavar="SECONDS", help="Compute time per batch.  [default: the trace's]")
@click.option("--scheme", "schemes", multiple=True, help="Scheme to simulate. Repeat to compare several.")
@click.option("--sweep", is_flag=True, help="Simulate a grid of every family of schemes and show the best of each.")
@click.option("--inexact", is_flag=True, help="Allow schemes that change the gradients: ksync:K, async:A[,parts=P].")
@click.option(
    "--scheduler",
    metavar="[auto|rounds|pipeline]",
    help="Scheduler to simulate; pipeline can be combined with --scheme.  [default: auto, or rounds with a scheme]",
)
@click.option("--parts", multiple=True, **like("parts", COMPARE, default=True))
@click.option("--copies", multiple=True, **like("copies", COMPARE, default=True))
@click.option("--lanes", multiple=True, **like("lanes", COMPARE, default=True))
@click.option("--burst", **like("burst", default=True))
@click.option("--places", default=0, **like("places", default=True))
@click.option("--objective", default="seconds", show_default=True, **like("objective"))
@click.option("--prices", "price", **like("prices"))
@click.option("--closing", default="safe", show_default=True, **like("closing"))
@click.option("--cutoff", default=0.0, show_default=True, **like("cutoff"))
@click.option("--mu", default=1.0, show_default=True, **like("mu"))
@click.option("--unfinished", default="lost", show_default=True, **like("unfinished"))
@click.option(
    "--arrival",
    metavar="[scheme|row|message]",
    default="scheme",
    show_default=True,
    help="How the rows of a message arrive: one by one (row), all together (message), or as each scheme assumes (scheme).",
)
@click.option("--bounds", is_flag=True, help="Also show lower bounds, for schedulers that know every delay in advance.")
@click.option("--models", type=int, default=4, show_default=True, help="Number of models trained at once.")
@click.option("--jobs", type=int, default=80, show_default=True, help="Number of jobs, of all models together.")
@click.option(
    "--workers", type=int, metavar="N", help="Use the first N workers of the trace.  [default: all; 256 for a profile]"
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of a generated profile.")
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also draw the results, and a timeline of the workers under the best one: .png, .svg or .pdf.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print the result as a JSON object, or several (a sweep: all) as a list."
)
@click.pass_context
def simulate(context: click.Context, /, **options: Any) -> None:
    """Compare ways of scheduling in virtual time.

    Shows the seconds per job that schemes and pipelines take on a trace, or on a generated profile of delays. Trains nothing.

    Example: distseq simulate --profile bursts

    Example: distseq simulate --profile bursts --scheme uncoded --scheme gc:3 --scheme msgc:1,2,27

    Example: distseq simulate --profile bursts --scheduler pipeline --parts 8 --parts 16 --copies 1 --copies 2

    Example: distseq simulate --profile bursts --sweep --bounds --slope 20 --plot bursts.svg
    """
    from distseq.simulation.compare import simulate_schemes

    as_json = options.pop("as_json")
    with only_json(as_json) as write:
        results = simulate_schemes(**options, given=given(context))
        if as_json:
            # One result is an object, so that scripts for a single scheme need not unpack a list.
            write(json.dumps(results[0] if len(results) == 1 else results))
    if not as_json:
        from distseq.simulation.compare import best_of_families
        from distseq.simulation.tables import table

        click.echo(table(best_of_families(results) if options["sweep"] else results))
