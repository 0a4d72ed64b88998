"""`distseq doctor`: print what is wrong with an installation, a cluster or a config file."""

import json
from pathlib import Path

import click

from distseq.cli.json_output import only_json
from distseq.cli.options import given, like


@click.command()
@click.argument("config", type=click.Path(path_type=Path), required=False)
@click.option(
    "--address",
    help="Ray cluster to check: auto, HOST:PORT, or its dashboard, http://HOST:8265.  [default: that of a run]",
)
@click.option("--python", default="python", show_default=True, help="Python interpreter on the cluster.")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    help="File with the cluster's token.  [default: where Ray looks for it]",
)
@click.option("--insecure", **like("insecure") | {"default": False})
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with the list of findings.")
@click.pass_context
def doctor(
    context: click.Context,
    /,
    config: Path | None,
    address: str | None,
    python: str,
    token_file: Path | None,
    insecure: bool,
    as_json: bool,
) -> int:
    """Check this installation, a config file or a cluster.

    A config file is checked if it is given, a cluster if there is one: that of --address, of the config file, or of
    RAY_ADDRESS. Exits with 1 if there is an error.

    Example: distseq doctor config.toml --address auto
    """
    from distseq.cli.doctor import cluster, findings, machine

    if address is None and "python" in given(context):
        raise ValueError("python is an option of --address, whose interpreter it names: got no --address")
    checks = [*machine.CHECKS, *cluster.CHECKS]
    if config is not None:
        # Imported only now: it needs packages that may be missing, which the checks above report.
        from distseq.cli.doctor import config_file

        checks += config_file.CHECKS
    subject = findings.Subject(config, address, python, token_file, insecure)
    found = []
    with only_json(as_json) as write:
        for finding in findings.examine(checks, subject):
            found.append(finding)
            if not as_json:
                write(f"{finding.level:<8} {finding.about}: {finding.text}")
        failed = any(finding.level == "error" for finding in found)
        if as_json:
            write(json.dumps({"ok": not failed, "findings": [finding._asdict() for finding in found]}))
    return int(failed)
