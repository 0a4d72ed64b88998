"""The command line: options in, one JSON object or a table out, one line and exit code 2 for a mistake."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from distseq import __version__
from distseq.cli_delays import plan, profile, simulate


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
        from distseq.summary import show

        show(console, result.summary, str(result.folder))
    if result.summary["failures"]:
        from distseq.failing import Failed, FailedError

        raise FailedError([Failed(**one) for one in result.summary["failures"]], str(result.folder))


@cli.command()
@click.argument("job", type=click.Path(path_type=Path), required=False)
@click.option("--address", help="Of a running cluster: auto, HOST:PORT, or its dashboard's http://HOST:8265.")
@click.option("--python", default="python", show_default=True, help="The interpreter on the cluster.")
@click.option("--token-file", type=click.Path(path_type=Path), help="The cluster's token.  [default: where Ray looks]")
@click.option("--json", "as_json", is_flag=True, help="Print one object, with a list of what was found.")
def doctor(job: Path | None, address: str | None, python: str, token_file: Path | None, as_json: bool) -> int:
    """Check this installation, and a cluster and a job file if they are named; exit code 1 when something is wrong.

    Example: distseq doctor job.toml --address auto
    """
    from distseq.doctor import cluster, findings, machine
    from distseq.doctor import job as of_job

    subject = findings.Subject(job, address, python, token_file)
    found = []
    for finding in findings.examine([*machine.CHECKS, *cluster.CHECKS, *of_job.CHECKS], subject):
        found.append(finding)
        if not as_json:
            click.echo(f"{finding.level:<8} {finding.about}: {finding.text}")
    failed = any(finding.level == "error" for finding in found)
    if as_json:
        click.echo(json.dumps({"ok": not failed, "findings": [finding._asdict() for finding in found]}))
    return int(failed)


for command in (simulate, plan, profile):
    cli.add_command(command)


class WithCommand(click.Command):
    """Keeps what follows `--` apart, in `context.meta["command"]`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        at = args.index("--") if "--" in args else len(args)
        ctx.meta["command"] = args[at + 1 :]
        return super().parse_args(ctx, args[:at])


@cli.command(cls=WithCommand, context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[JOB.toml] [OPTIONS OF TRAIN] [-- COMMAND]")
@click.option(
    "--address",
    default="http://127.0.0.1:8265",
    envvar=["RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"],
    show_default=True,
    help="Of the cluster's dashboard.",
)
@click.option(
    "--working-dir",
    type=click.Path(path_type=Path),
    default=".",
    show_default=True,
    help="Folder that the job runs in a copy of; .gitignore and .rayignore hold.",
)
@click.option("--token-file", type=click.Path(path_type=Path), help="The cluster's token.  [default: where Ray looks]")
@click.option("--python", default="python", show_default=True, help="The interpreter on the cluster.")
@click.option("--no-wait", is_flag=True, help="Print the id of the job and leave.")
@click.pass_context
def submit(context: click.Context, /, arguments: tuple[str, ...], no_wait: bool, **options: Any) -> int:
    """Train a job file on a Ray cluster, with this distseq, and end as the job ends; or run a command there.

    Model and data are read from the working dir. The run folder, --out, is on the cluster's head.

    Example: distseq submit job.toml --address http://HOST:8265 --steps 500
    """
    from distseq.submission import submit as run

    with train.make_context("submit", list(arguments), parent=context) as parsed:
        given = {key: value for key, value in parsed.params.items() if value not in (None, False)}
    job, as_json = given.pop("config", None), given.pop("as_json", False)
    passed = {key: value if value is True else str(value) for key, value in given.items()}
    return run(
        job,
        passed | ({"json": True} if as_json else {}),
        context.meta["command"],
        wait=not no_wait,
        write=lambda text: click.echo(text, nl=False),
        say=lambda line: click.echo(line, err=True),
        **options,
    )


def one_line_errors(command: Callable[[], object]) -> int:
    """A command's exit code, 0 if it has none; a mistake is one line and 2, a pool or learners that failed one message and 1,
    a stop 130 or 143."""
    from distseq.cluster.errors import PoolError
    from distseq.cluster.signals import Stopped
    from distseq.failing import FailedError

    try:
        code = command()
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
    except (PoolError, FloatingPointError, FailedError) as error:
        click.echo(f"error: {error}", err=True)
        return 1
    return code if isinstance(code, int) else 0


def main() -> None:
    """The console script. Models and data named by import strings may lie in the current folder, as with `python -m`."""
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    sys.exit(one_line_errors(lambda: cli(prog_name="distseq", standalone_mode=False)))
