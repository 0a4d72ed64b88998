"""`distseq plan`: predict the cost of every way of scheduling, and which is best."""

import json
from pathlib import Path
from typing import Any

import click

from distseq.cli.json_output import only_json
from distseq.cli.options import like


@click.command()
@click.argument("config", type=click.Path(path_type=Path), required=False)
@click.option(
    "--trace", type=click.Path(path_type=Path), help="Trace file: .npz, or .csv with a column for each worker."
)
@click.option("--profile", help="Generated delays, NAME[:base=SECONDS].  [default: the config file's]")
@click.option("--run", type=click.Path(path_type=Path), help="Use the delays in the journal of this run folder.")
@click.option("--slope", type=float, metavar="SECONDS", help="Compute time per batch.  [default: the trace's]")
@click.option(
    "--workers",
    type=int,
    help="Number of workers.  [default: the config file's, or all of the trace; 256 for a profile]",
)
@click.option(
    "--models", type=int, help="Number of models trained at once.  [default: the config file's learners, or 4]"
)
@click.option(
    "--batch", type=int, help="Samples per job, the maximum number of its parts.  [default: the config file's smallest]"
)
@click.option(
    "--parameters", type=int, default=0, help="Number of model parameters, to count bytes.  [default: unknown]"
)
@click.option("--unfinished", **like("unfinished", "[default: the config file's, or serial]"))
@click.option("--objective", **like("objective", "[default: the config file's, or seconds]", scheduler=False))
@click.option("--prices", **like("prices", scheduler=False))
@click.option("--seed", type=int, help="Seed of a generated profile.  [default: the config file's, or 0]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def plan(config: Path | None, as_json: bool, **options: Any) -> None:
    """Predict the cost of every way of scheduling.

    Shows the best of every family of schemes on the given delays, best first; auto would choose the first.

    Example: distseq plan examples/main.toml

    Example: distseq plan --trace measured.npz --models 4 --parameters 270000 --prices worker_second=1.7e-5,message=2e-7
    """
    # Imported here, because numpy and numba would slow `distseq --help` down.
    from distseq.simulation.plan import plan as made
    from distseq.simulation.tables import lines

    with only_json(as_json) as write:
        found = made(config, **options)
        write(json.dumps(found) if as_json else "\n".join(lines(found)))
