"""The command line: options in, one JSON object or a table out, one line and exit code 2 for a mistake."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from distseq import __version__


@click.group(
    invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(__version__)
@click.pass_context
def cli(context: click.Context) -> None:
    """Train many sequence models at once on workers that cannot be trusted to be on time.

    Example: distseq train examples/main.toml
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@cli.command()
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
@click.option("--scheme", help="uncoded, gc:S[,q=Q], srsgc:B,W,LAM or msgc:B,W,LAM, each with [,code=fr|cyclic].")
@click.option("--closing", help="When a round ends: safe or mu.")
@click.option("--cutoff", type=float, help="closing=safe: not before so many seconds.")
@click.option("--mu", type=float, help="closing=mu: not before 1 + MU times the fastest.")
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
        from distseq.summary import show

        show(console, result.summary, str(result.folder))


@cli.command()
@click.option("--trace", type=click.Path(path_type=Path), help="Trace file: an .npz of times, load and slope.")
@click.option("--profile", help="Generated delays, NAME[:base=SECONDS], in place of a trace.")
@click.option("--scheme", "schemes", multiple=True, required=True, help="May be given several times: best first.")
@click.option("--closing", default="safe", show_default=True, help="When a round ends: safe or mu.")
@click.option("--cutoff", type=float, default=0.0, show_default=True, help="closing=safe: not before so many seconds.")
@click.option(
    "--mu", type=float, default=1.0, show_default=True, help="closing=mu: not before 1 + MU times the fastest."
)
@click.option("--unfinished", default="lost", show_default=True, help="Unfinished workers: lost, overlap or serial.")
@click.option(
    "--arrival", default="scheme", show_default=True, help="Rows of a message: row, message, or as the scheme says."
)
@click.option("--models", type=int, default=4, show_default=True)
@click.option("--jobs", type=int, default=80, show_default=True, help="Of all models together.")
@click.option("--workers", type=int, help="First so many columns of the trace.  [default: all; 256 for a profile]")
@click.option("--seed", type=int, default=0, show_default=True, help="Of a generated profile.")
@click.option("--json", "as_json", is_flag=True, help="Print an object, or a list of them for several schemes.")
def simulate(**options: Any) -> None:
    """Seconds per job of schemes on a trace, in virtual time; nothing is learned.

    Example: distseq simulate --profile bursts --scheme uncoded --scheme gc:3 --scheme msgc:1,2,27
    """
    from distseq.commands import simulate_schemes

    results = simulate_schemes(**{k: v for k, v in options.items() if k != "as_json"})
    if options["as_json"]:
        click.echo(json.dumps(results[0] if len(results) == 1 else results))
    else:
        from distseq.commands import table

        click.echo(table(results))


@cli.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Trace file to write, an .npz.")
@click.option("--run", type=click.Path(path_type=Path), help="Take the delays that this run folder's journal holds.")
@click.option("--pool", default="ray", show_default=True, help="Else probe workers now: ray or local.")
@click.option("--workers", type=int, default=8, show_default=True)
@click.option("--hosts", type=int, help="Actors or processes that share the workers.  [default: one per CPU]")
@click.option("--address", default="local", show_default=True, help="ray: of a running cluster, or auto.")
@click.option("--rounds", type=int, default=50, show_default=True)
@click.option("--seconds", type=float, default=0.0, show_default=True, help="Computing of each worker in each round.")
def profile(out: Path, **options: Any) -> None:
    """Measure how long workers take and write it as a trace, for `simulate --trace` and `train --delays`.

    Example: distseq profile --run runs/main-1 --out measured.npz
    """
    from distseq.commands import profile_pool

    trace = profile_pool(out=out, **options)
    rounds, workers = trace.times.shape
    click.echo(f"{out}: {rounds} invocations of each of {workers} workers, {trace.slope:.4g} s of compute per batch")


def one_line_errors(command: Callable[[], object]) -> int:
    """Run a command; a user's mistake is one line and 2, a pool that gave up one message and 1, a stop 130 or 143."""
    from distseq.cluster.errors import PoolError
    from distseq.cluster.signals import Stopped

    try:
        command()
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.Abort:
        return 130
    except click.ClickException as error:
        click.echo(f"error: {error.format_message()}", err=True)
        return error.exit_code
    except Stopped as stop:
        click.echo(str(stop), err=True)
        return stop.code
    except ValueError as error:
        click.echo(f"error: {' '.join(str(error).split())}", err=True)
        return 2
    except (PoolError, FloatingPointError) as error:
        click.echo(f"error: {error}", err=True)
        return 1
    return 0


def main() -> None:
    """The console script. Models and data named by import strings may lie in the current folder, as with `python -m`."""
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    sys.exit(one_line_errors(lambda: cli(prog_name="distseq", standalone_mode=False)))
