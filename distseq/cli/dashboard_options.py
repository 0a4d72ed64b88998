"""Options of commands that reach a Ray cluster through its dashboard."""

from pathlib import Path

import click

from distseq.cli.options import like

address = click.option(
    "--address",
    default="http://127.0.0.1:8265",
    envvar=["RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"],
    show_default=True,
    help="URL of the cluster's dashboard.",
)
token_file = click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    help="File with the cluster's token.  [default: where Ray looks for it]",
)
insecure = click.option("--insecure", **like("insecure") | {"default": False})
python = click.option("--python", default="python", show_default=True, help="Python interpreter on the cluster.")
