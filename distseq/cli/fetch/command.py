"""`distseq fetch`: copy a run folder from a Ray cluster."""

from pathlib import Path
from typing import Any

import click

from distseq.cli import dashboard_options


@click.command()
@click.argument("run", metavar="JOB|RUN")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder to make.  [default: runs/NAME, NAME being that of the run folder on the cluster]",
)
@dashboard_options.address
@dashboard_options.token_file
@dashboard_options.insecure
@dashboard_options.python
def fetch(run: str, **options: Any) -> None:
    """Copy a run folder from a Ray cluster.

    JOB is the id that `distseq submit` prints; RUN is the path of a run folder on the cluster's head, which begins with / or ~/.
    The copy is verified and then put in place as a whole. A fetch that was cut off goes on where it ended.

    Example: distseq fetch job-1a2b3c4d --address http://HOST:8265
    """
    from distseq.cli.fetch.fetching import fetch as run_it

    target = run_it(run, say=lambda line: click.echo(line, err=True), **options)
    click.echo(target)
