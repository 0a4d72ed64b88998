"""Sphinx extension: this project's docstrings, which are plain text, as reStructuredText that shows them as they are."""

import re
from typing import Any

ARGUMENT = re.compile(r"^([a-z_]\w*(?:, [a-z_]\w*)*): (\S.*)$")


def convert(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """In place: `code` in backticks, everything else literally; a list of arguments becomes a list."""
    lines[:] = plain(lines)


def plain(lines: list[str]) -> list[str]:
    """reStructuredText of a docstring's lines."""
    made: list[str] = []
    listed = False
    for line in lines:
        argument = ARGUMENT.match(line)
        if argument:
            if made and made[-1] and not listed:
                made.append("")
            made.append(f"- **{_escaped(argument[1])}**: {_marked(argument[2])}")
            listed = True
        elif listed and line.startswith("    "):
            made.append(f"  {_marked(line.strip())}")
        else:
            if listed and line:
                made.append("")
            listed = listed and not line
            indent = len(line) - len(line.lstrip())
            # An indented line is shown as a line of its own.
            made.append(f"| {_marked(line.strip())}" if indent and line.strip() else _marked(line))
            if indent == 0 and len(made) > 1 and made[-2].startswith("| ") and line:
                made.insert(-1, "")
            if indent and len(made) > 1 and made[-2] and not made[-2].startswith("| "):
                made.insert(-1, "")
    return made


def _marked(text: str) -> str:
    """Backticks become code; what reStructuredText would read as a mark is escaped."""
    pieces = re.split(r"(`[^`]+`)", text)
    return "".join(f"``{piece.strip('`')}``" if piece.startswith("`") else _escaped(piece) for piece in pieces)


def _escaped(text: str) -> str:
    return re.sub(r"([\\*|_])", r"\\\1", text)


def setup(app: Any) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", convert)
    return {"parallel_read_safe": True}
