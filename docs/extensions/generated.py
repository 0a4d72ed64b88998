"""Sphinx extension: replaces `<!-- generated: NAME -->` on a page by Markdown generated from the code at build time."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from extensions import architecture, commands, config_file, decisions

ROOT = Path(__file__).resolve().parents[2]
MADE: dict[str, Callable[[], str]] = {
    "commands": commands.markdown,
    "config file": config_file.markdown,
    "layers": lambda: architecture.layers(ROOT),
    "files": lambda: architecture.files(ROOT),
    "decisions": lambda: decisions.markdown(ROOT),
}
MARKER = re.compile(r"^<!-- generated: (.+) -->$", re.MULTILINE)


def fill(app: Any, page: str, source: list[str]) -> None:
    """Puts in what the markers of a page ask for. KeyError for a name that nothing makes."""
    source[0] = MARKER.sub(lambda found: MADE[found[1]](), source[0])


def setup(app: Any) -> dict[str, bool]:
    app.connect("source-read", fill)
    return {"parallel_read_safe": True}
