"""Sphinx extension: escapes docstrings, which are plain text here, so that reStructuredText shows them unchanged."""

import re
from itertools import groupby
from typing import Any

ARGUMENT = re.compile(r"^([a-z_]\w*(?:, [a-z_]\w*)*): (\S.*)$")


def convert(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """In place: `code` in backticks, lists of arguments and examples are shown as such, everything else literally."""
    lines[:] = plain(lines)


def plain(lines: list[str]) -> list[str]:
    """reStructuredText of a docstring's lines, block by block."""
    made: list[str] = []
    for blank, block in groupby(lines, key=lambda line: not line.strip()):
        if not blank:
            made += [*_block(list(block)), ""]
    return made


def _block(lines: list[str]) -> list[str]:
    if lines[0].lstrip().startswith(">>>"):
        return [line.strip() if line.lstrip().startswith(">>>") else line for line in lines]
    made: list[str] = []
    kind = ""  # of the line before: an argument, an indented line, or text
    for line in lines:
        argument, indented = ARGUMENT.match(line), line[0].isspace()
        before, kind = (
            kind,
            "argument" if argument or (kind == "argument" and indented) else "line" * indented or "text",
        )
        if before not in ("", kind):
            made.append("")
        if argument:
            made.append(f"- **{_escaped(argument[1])}**: {_marked(argument[2])}")
        else:
            made.append({"argument": "  ", "line": "| ", "text": ""}[kind] + _marked(line.strip()))
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
