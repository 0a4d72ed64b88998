"""`distseq train`: train a config file, or resume a run."""

import json
from pathlib import Path
from typing import Any

import click

from distseq.cli.json_output import only_json
from distseq.cli.options import config_options


@click.command()
@click.argument("config", type=click.Path(path_type=Path), required=False)
@click.option(
    "--resume",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Resume the run in this folder; give no CONFIG then.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Run folder, new or empty.  [default: runs/NAME-N]")
@config_options
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
def train(config: Path | None, resume: Path | None, out: Path | None, as_json: bool, **options: Any) -> None:
    """Train the learners of a config file, or resume a run.

    Most options override keys of the config file. A default applies if neither the option nor the file sets the key.

    Example: distseq train examples/main.toml --pool simulated --workers 256
    """
    if config is None and resume is None:
        raise click.UsageError("Missing argument 'CONFIG', or --resume RUN.")
    from rich.console import Console

    import distseq

    # Without markup, which a folder or a scheme might be taken for.
    console = Console(stderr=as_json, markup=False, emoji=False)
    with only_json(as_json) as write:
        try:
            result = distseq.train(config, resume=resume, out=out, console=console, **options)
        except distseq.Stopped as stop:
            # Here, since click would take it for a plain KeyboardInterrupt.
            click.echo(str(stop), err=True)
            raise click.exceptions.Exit(stop.code) from None
        if as_json:
            write(json.dumps(result.summary))
        else:
            from distseq.artifacts.summary import show
            from distseq.monitoring.forgiving import forgiving

            with forgiving(console):
                show(console, result.summary, str(result.folder))
    if result.summary["failures"]:
        from distseq.engine.failures import FailedError, LearnerFailure

        # After the summary: the run is complete and its results are written, but the exit code must not be 0.
        raise FailedError([LearnerFailure(**one) for one in result.summary["failures"]], str(result.folder))
