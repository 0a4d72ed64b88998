"""`distseq submit`: run a config file, with the options of `train`, or a command on a Ray cluster."""

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from distseq.cli import dashboard_options
from distseq.cli.json_output import JsonLog
from distseq.cli.train import train
from distseq.config.options import OPTIONS


class WithCommand(click.Command):
    """A click command that keeps the words after `--` apart, in `context.meta["command"]`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # click drops "--" and would take the command's options for its own.
        at = args.index("--") if "--" in args else len(args)
        ctx.meta["command"] = args[at + 1 :]
        return super().parse_args(ctx, args[:at])


@click.command(cls=WithCommand, context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[CONFIG] [OPTIONS OF TRAIN] [-- COMMAND]")
@dashboard_options.address
@click.option(
    "--working-dir",
    type=click.Path(path_type=Path),
    default=".",
    show_default=True,
    help="Folder to copy to the cluster and to run in; .gitignore and .rayignore are respected.",
)
@dashboard_options.token_file
@dashboard_options.insecure
@dashboard_options.python
@click.option("--no-wait", is_flag=True, help="Print the id of the Ray job and exit without waiting for it.")
@click.pass_context
def submit(context: click.Context, /, arguments: tuple[str, ...], no_wait: bool, **options: Any) -> int:
    """Train on a Ray cluster, or run a command there.

    Sends this version of distseq and the working dir, from which models and data are read. Shows the output of the Ray job and
    exits with its exit code. The run folder, --out, is on the cluster's head node.

    Example: distseq submit config.toml --address http://HOST:8265 --steps 500
    """
    from distseq.cli.submit.submission import submit as run

    if context.meta["command"] and context.get_parameter_source("python") is ParameterSource.COMMANDLINE:
        raise ValueError("python is an option of a config file: a command after -- names its own program")
    # The options of train are parsed here, so that a mistake shows before anything is sent.
    with train.make_context("submit", list(arguments), parent=context) as parsed:
        # False is a flag that was not given.
        given = {key: value for key, value in parsed.params.items() if value is not None and value is not False}
    config, as_json = given.pop("config", None), given.pop("as_json", False)
    # Of a flag that is true by default, False was given.
    given |= {
        key: False
        for key, value in parsed.params.items()
        if value is False and key in OPTIONS and OPTIONS[key].key.default is True
    }
    log = JsonLog()
    code = run(
        config,
        given | ({"json": True} if as_json else {}),
        context.meta["command"],
        wait=not no_wait,
        write=log.write if as_json and not no_wait else lambda text: click.echo(text, nl=False),
        say=lambda line: click.echo(line, err=True),
        **options,
    )
    log.close()
    return code
