"""`distseq plan`: predict what each way of scheduling takes, and which is best."""

import json
from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("job", type=click.Path(path_type=Path), required=False)
@click.option(
    "--trace",
    type=click.Path(path_type=Path),
    help="Trace file: .npz, or .csv with a column for each worker.",
)
@click.option("--profile", help="Generated delays, NAME[:base=SECONDS].  [default: the job's]")
@click.option("--run", type=click.Path(path_type=Path), help="The delays that this run folder's journal holds.")
@click.option("--slope", type=float, metavar="SECONDS", help="Of compute per batch, in place of the trace's.")
@click.option("--workers", type=int, help="[default: the job's, or all of the trace; 256 for a profile]")
@click.option("--models", type=int, help="[default: the job's learners, or 4]")
@click.option("--batch", type=int, help="Samples of a job: it is not cut into more parts.  [default: the job's]")
@click.option("--parameters", type=int, default=0, help="Of a model: what a row has numbers.  [default: bytes unknown]")
@click.option("--unfinished", help="Unfinished workers: lost, overlap or serial.  [default: the job's, or serial]")
@click.option("--objective", help="seconds, worker-seconds or price.  [default: the job's, or seconds]")
@click.option("--prices", metavar="KEY=DOLLARS,...", help="Of worker_second, held_second, message, gigabyte.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of a generated profile.")
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
def plan(job: Path | None, as_json: bool, **options: Any) -> None:
    """What each way of scheduling would take on these delays, the best of every family, and what auto would choose.

    Example: distseq plan examples/main.toml

    Example: distseq plan --trace measured.npz --models 4 --parameters 270000 --prices worker_second=1.7e-5,message=2e-7
    """
    from distseq.simulation.plan import plan as made
    from distseq.simulation.tables import lines

    found = made(job, **options)
    click.echo(json.dumps(found) if as_json else "\n".join(lines(found)))
