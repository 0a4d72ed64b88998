"""The `distseq` command: its subcommands, and errors as one line with an exit code."""

import io
import sys
import warnings
from collections.abc import Callable
from typing import Any

import click

from distseq import __version__
from distseq.cli.broken_packages import broken_package
from distseq.cli.doctor.command import doctor
from distseq.cli.events import events
from distseq.cli.fetch.command import fetch
from distseq.cli.json_output import silence_output
from distseq.cli.plan import plan
from distseq.cli.profile import profile
from distseq.cli.simulate import simulate
from distseq.cli.submit.command import submit
from distseq.cli.train import train
from distseq.cluster.system.search_path import current_folder_last

PYTHONS = warnings.showwarning


class OneLine(click.Group):
    """A group whose commands end in one line when they are interrupted."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            # Here, because click itself would write an empty line and forget what was interrupted.
            raise click.exceptions.Abort(*stop.args) from None


@click.group(
    cls=OneLine,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__)
@click.pass_context
def cli(context: click.Context) -> None:
    """Train many sequence models at once on workers that are often late, with exact gradients.

    Example: distseq train examples/main.toml
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for command in (train, simulate, plan, profile, events, submit, fetch, doctor):
    cli.add_command(command)


def one_line_errors(command: Callable[[], object]) -> int:
    """Runs a command and returns its exit code, printing errors as one line.

    0: success, unless the command returns another code. 2: a user's mistake (ValueError, wrong usage). 1: the pool or learners
    failed. 130, 143: stopped by SIGINT or SIGTERM.
    """
    # Imported here: `distseq --help` need not wait for them.
    from distseq.artifacts.upload import UploadError
    from distseq.cluster.errors import PoolError
    from distseq.engine.failures import FailedError, UnwrittenError

    try:
        code = command()
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.Abort as stop:
        # No more than that: it may be a simulation, or the replays after a run that is complete.
        click.echo(str(stop) or "interrupted", err=True)
        return 130
    except click.ClickException as error:
        click.echo(f"error: {error.format_message()}", err=True)
        return error.exit_code
    except ValueError as error:
        # A message of several lines (a user's own, or a library's) is joined into one.
        click.echo(f"error: {' '.join(str(error).split())}", err=True)
        return 2
    except (PoolError, FloatingPointError, FailedError, UnwrittenError, UploadError) as error:
        click.echo(f"error: {error}", err=True)
        return 1
    # Of the machine: out of memory, of descriptors, of disk.
    except (MemoryError, OSError) as error:
        click.echo(f"error: {type(error).__name__}: {' '.join(str(error).split())}".rstrip(": "), err=True)
        return 1
    except Exception as error:
        # A package of the installation, not the user's own module, which is named where it is imported.
        line = broken_package(error)
        if line is None:
            raise
        click.echo(f"error: {line}", err=True)
        return 2
    return code if isinstance(code, int) else 0


def _one_line_warnings(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """Prints our own warnings as one line; others as Python does."""
    if category.__module__.startswith("distseq."):
        click.echo(f"warning: {message}", err=True)
    else:
        PYTHONS(message, category, *where, **more)


def main() -> None:
    """The entry point of the console script."""
    warnings.showwarning = _one_line_warnings
    # Models and data named by import strings may lie in the current folder.
    current_folder_last()
    from distseq.cluster.system.output import flush_or_discard
    from distseq.cluster.system.stop_signals import end_at_second_signal

    end_at_second_signal()
    for stream in (sys.stdout, sys.stderr):
        # A console that cannot show a character, as with LC_ALL=C, shows its number.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = one_line_errors(lambda: cli(prog_name="distseq", standalone_mode=False))
    # Nobody reads the errors.
    except BrokenPipeError:
        code = 1
    for stream in (sys.stdout, sys.stderr):
        flush_or_discard(stream)
    # What exit handlers of models print is no part of the result.
    silence_output()
    sys.exit(code)
