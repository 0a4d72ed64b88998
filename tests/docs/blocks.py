"""The fenced code blocks of a Markdown page, and what an HTML comment right above each says of it.

<!-- file: NAME -->       the reader saves the block under this name
<!-- append: NAME -->     ... or at the end of that file
<!-- not run: REASON -->  the block cannot run in a test
<!-- exit: CODE -->       the last command of the shell block ends with this code
<!-- needs: examples -->  anywhere on a page: its blocks run beside a copy of this folder of the repository
"""

import re
from dataclasses import dataclass
from pathlib import Path

RUN = ("sh", "python")
CHECKED = (*RUN, "toml")
PROSE = ("text", "diff", "math")  # outputs, changes, formulas: nothing to run
DIRECTIVES = ("file", "append", "not run", "exit")
FENCE = re.compile(
    r"^(?:<!-- (?P<directive>[a-z ]+): (?P<value>.*?) -->\n)?"
    r"^(?P<fence>`{3,})(?P<language>\S*).*\n(?P<code>(?:.*\n)*?)(?P=fence)$",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """One fenced block; `line` is the line of its fence, from 1."""

    language: str
    code: str
    line: int
    directive: str
    value: str


def blocks(text: str) -> list[Block]:
    """All of a page, in their order."""
    return [
        Block(
            found["language"],
            found["code"],
            text.count("\n", 0, found.start("fence")) + 1,
            found["directive"] or "",
            found["value"] or "",
        )
        for found in FENCE.finditer(text)
    ]


def needs(text: str) -> list[str]:
    """Folders of the repository that the blocks of a page read."""
    return re.findall(r"^<!-- needs: (\w+) -->$", text, re.MULTILINE)


def pages(root: Path) -> list[Path]:
    """README.md and the pages of the site, in a fixed order; decisions are records, and keep what they say."""
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]
