"""The command line's own help as a page: every command with its arguments and options."""

import inspect
import re
from importlib import import_module

import click

HOMES = ("distseq.cli.main", "distseq.cli")  # where the group of all commands may lie


def markdown() -> str:
    """A section for each command."""
    group = _group()
    return "\n".join(_section(name, command) for name, command in sorted(group.commands.items()))


def _group() -> click.Group:
    for home in HOMES:
        try:
            found = getattr(import_module(home), "cli", None)
        except ImportError:
            continue
        if isinstance(found, click.Group):
            return found
    raise LookupError(f"no command group in {', '.join(HOMES)}")


def _section(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=f"distseq {name}")
    text = inspect.cleandoc(command.help or "")
    prose = [part for part in text.split("\n\n") if not part.startswith("Example:")]
    examples = [" ".join(part.removeprefix("Example:").split()) for part in text.split("\n\n") if part not in prose]
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [f"## distseq {name}", "", f"`distseq {name} {usage}`", "", *(f"{_plain(part)}\n" for part in prose)]
    if examples:
        lines += ["```text", *examples, "```", ""]
    rows = [record for option in command.get_params(context) if (record := option.get_help_record(context))]
    return "\n".join([*lines, "| option | what it does |", "|---|---|", *(_row(*record) for record in rows), ""])


def _row(names: str, text: str) -> str:
    return f"| `{names.replace('|', '¦')}` | {_plain(text)} |"


def _plain(text: str) -> str:
    """Help text as Markdown: on one line, with nothing in it that Markdown would read as a mark."""
    return re.sub(r"([\\|*_<\[\]`$])", r"\\\1", " ".join(text.replace("\b", "").split()))
