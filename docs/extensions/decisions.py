"""Lists the decision records by their first lines."""

from pathlib import Path


def markdown(root: Path) -> str:
    """A table of contents of docs/decisions."""
    names = sorted(path.stem for path in (root / "docs" / "decisions").glob("*.md"))
    return "\n".join(["```{toctree}", ":maxdepth: 1", "", *(f"decisions/{name}" for name in names), "```"])
