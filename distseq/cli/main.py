"""The `distseq` command: its subcommands, and errors as one line with an exit code."""

import os
import sys
from collections.abc import Callable

import click

from distseq import __version__
from distseq.cli.doctor.command import doctor
from distseq.cli.plan import plan
from distseq.cli.profile import profile
from distseq.cli.simulate import simulate
from distseq.cli.submit.command import submit
from distseq.cli.train import train


@click.group(
    invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(__version__)
@click.pass_context
def cli(context: click.Context) -> None:
    """Train many sequence models at once on workers that are often late, with exact gradients.

    Example: distseq train examples/main.toml
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for command in (train, simulate, plan, profile, submit, doctor):
    cli.add_command(command)


def one_line_errors(command: Callable[[], object]) -> int:
    """Runs a command and returns its exit code, printing errors as one line.

    0: success, unless the command returns another code. 2: a user's mistake (ValueError, wrong usage). 1: the pool or learners
    failed. 130, 143: stopped by SIGINT or SIGTERM.
    """
    # Imported here: `distseq --help` need not wait for them.
    from distseq.cluster.errors import PoolError
    from distseq.cluster.system.stop_signals import Stopped
    from distseq.engine.failures import FailedError

    try:
        code = command()
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.Abort:
        # No more than that: it may be a simulation, or the replays after a run that is complete.
        click.echo("interrupted", err=True)
        return 130
    except click.ClickException as error:
        click.echo(f"error: {error.format_message()}", err=True)
        return error.exit_code
    except Stopped as stop:
        click.echo(str(stop), err=True)
        return stop.code
    except ValueError as error:
        # A message of several lines (a user's own, or a library's) is joined into one.
        click.echo(f"error: {' '.join(str(error).split())}", err=True)
        return 2
    except (PoolError, FloatingPointError, FailedError) as error:
        click.echo(f"error: {error}", err=True)
        return 1
    return code if isinstance(code, int) else 0


def main() -> None:
    """The entry point of the console script."""
    # As with `python -m`: models and data named by import strings may lie in the current folder.
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    sys.exit(one_line_errors(lambda: cli(prog_name="distseq", standalone_mode=False)))
