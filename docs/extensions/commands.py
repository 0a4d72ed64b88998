"""Turns the help of every command into a page of the site."""

import inspect
import re

import click

from distseq.cli.main import cli


def markdown() -> str:
    """A section for each command."""
    return "\n".join(_section(name, command) for name, command in cli.commands.items())


def _section(name: str, command: click.Command) -> str:
    # Below the group's context, as on the command line: click keeps the names of the help option that it sees first.
    context = click.Context(command, click.Context(cli, **cli.context_settings), f"distseq {name}")
    text = inspect.cleandoc(command.help or "")
    prose = [part for part in text.split("\n\n") if not part.startswith("Example:")]
    examples = [" ".join(part.removeprefix("Example:").split()) for part in text.split("\n\n") if part not in prose]
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [f"## distseq {name}", "", f"`distseq {name} {usage}`", "", *(f"{_plain(part)}\n" for part in prose)]
    if examples:
        lines += ["```text", *examples, "```", ""]
    options = [one for one in command.params if isinstance(one, click.Option)]
    rows = [record for option in options if (record := option.get_help_record(context))]
    return "\n".join([*lines, "| option | what it does |", "|---|---|", *(_row(*record) for record in rows), ""])


def _row(names: str, text: str) -> str:
    return f"| `{names.replace('|', '¦')}` | {_plain(text)} |"


def _plain(text: str) -> str:
    """Help text as Markdown: on one line, with nothing in it that Markdown would read as a mark."""
    return re.sub(r"([\\|*_<\[\]`$])", r"\\\1", " ".join(text.replace("\b", "").split()))
