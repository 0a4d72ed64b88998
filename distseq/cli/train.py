"""`distseq train`: train a config file, or resume a run."""

import json
from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("config", type=click.Path(path_type=Path), required=False)
@click.option(
    "--resume",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Go on with the run in this folder, in place of CONFIG.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Run folder, new or empty.  [default: runs/NAME-N]")
@click.option("--steps", type=int, help="Steps of each learner.")
@click.option("--seed", type=int)
@click.option("--scheduler", help="auto: as seems best; rounds; pipeline: idle workers pull parts.  [default: auto]")
@click.option(
    "--scheme",
    help="rounds: uncoded, gc:S[,q=Q], srsgc:B,W,LAM or msgc:B,W,LAM, each with [,code=fr|cyclic]; "
    "redispatch:T[,copies=C] or backup:PERCENT. Not exact: ksync:K or async:A[,parts=P].",
)
@click.option("--inexact", is_flag=True, default=None, help="Take a scheme that changes the gradients: ksync or async.")
@click.option("--closing", help="When a round ends: safe or mu.")
@click.option("--cutoff", type=float, help="closing=safe: not before so many seconds.")
@click.option("--mu", type=float, help="closing=mu: not before 1 + MU times the fastest.")
@click.option("--parts", type=int, help="pipeline: parts of a job.  [default: 4]")
@click.option("--copies", type=int, help="pipeline: of a part that may be under way at once.  [default: 2]")
@click.option("--lanes", type=int, help="pipeline: static sets of workers, a job in each.  [default: 1]")
@click.option("--burst", type=int, help="pipeline: parts that may share a message.  [default: 1]")
@click.option("--places", type=int, help="pipeline, auto: workers that have a part's data.  [default: all]")
@click.option("--objective", help="auto: seconds, worker-seconds or price.  [default: seconds]")
@click.option("--prices", metavar="KEY=DOLLARS,...", help="auto: of worker_second, held_second, message, gigabyte.")
@click.option("--pool", help="ray, local or simulated.")
@click.option("--workers", type=int)
@click.option(
    "--hosts", type=int, help="ray, local: actors or processes that share the workers.  [default: one per CPU]"
)
@click.option("--address", help="ray: of a running cluster, or auto.  [default: a local one]")
@click.option(
    "--elastic", is_flag=True, default=None, help="ray: as many workers as there is room for, at most WORKERS."
)
@click.option("--cpus", type=float, help="ray: CPUs of each actor.")
@click.option("--gpus", type=float, help="ray: GPUs of each actor.")
@click.option("--device", help="What hosts compute on: cpu, cuda or auto.")
@click.option("--delays", help="Profile NAME[:base=SECONDS] or trace file: injected into real workers, or simulated.")
@click.option("--unfinished", help="simulated: lost, overlap or serial.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
def train(config: Path | None, resume: Path | None, out: Path | None, as_json: bool, **options: Any) -> None:
    """Train the learners of a job file, or go on with a run that was stopped.

    Example: distseq train examples/main.toml --pool simulated --workers 256
    """
    if config is None and resume is None:
        raise click.UsageError("Missing argument 'CONFIG', or --resume RUN.")
    from rich.console import Console

    import distseq

    console = Console(stderr=as_json)
    result = distseq.train(config, resume=resume, out=out, console=console, **options)
    if as_json:
        click.echo(json.dumps(result.summary))
    else:
        from distseq.artifacts.summary import show

        show(console, result.summary, str(result.folder))
    if result.summary["failures"]:
        from distseq.engine.failures import FailedError, LearnerFailure

        raise FailedError([LearnerFailure(**one) for one in result.summary["failures"]], str(result.folder))
