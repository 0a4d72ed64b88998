"""Draws the layers of the package from its imports, and lists its files with their first lines.

`python -m docs.extensions.architecture > layers.svg`, from the repository root, writes the picture of the Architecture page.
"""

import ast
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.project.source import imports as imported
from tests.project.source import sources

Edges = Mapping[str, frozenset[str]]  # layer -> the layers that it imports
WIDTH, HEIGHT, ROW = 116, 34, 78  # of a box, and from one row to the next, in pixels


def paths(root: Path) -> list[Path]:
    """Every Python file of the package, relative to the root."""
    return [path.relative_to(root) for path in sources(root)]


def module(path: Path) -> str:
    """coding/a/b.py -> distseq.coding.a.b."""
    parts = path.with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    return ".".join(parts if parts[0] == "distseq" else ("distseq", *parts))


def layer(name: str, folders: frozenset[str]) -> str | None:
    """The layer that a dotted name lies in; None for what is outside the package, or at its top."""
    parts = name.split(".")
    return parts[1] if parts[0] == "distseq" and len(parts) > 1 and parts[1] in folders else None


def imports(root: Path) -> Edges:
    """Which layer imports which others, wherever in a file the import stands."""
    found = paths(root)
    folders = frozenset(module(path).split(".")[1] for path in found if len(module(path).split(".")) > 2)
    edges: dict[str, set[str]] = {folder: set() for folder in folders}
    for path in found:
        own = layer(module(path), folders)
        for _, name in imported(path, (root / path).read_text(encoding="utf-8")) if own else ():
            other = layer(name, folders)
            if own and other and other != own:
                edges[own].add(other)
    return {one: frozenset(others) for one, others in edges.items()}


def ranks(edges: Edges) -> dict[str, int]:
    """The row of each layer, 0 at the bottom: above everything that it imports. ValueError for a cycle."""
    found: dict[str, int] = {}

    def rank(one: str, above: tuple[str, ...]) -> int:
        if one in above:
            raise ValueError(f"layers import each other: {' -> '.join((*above, one))}")
        if one not in found:
            found[one] = max((rank(other, (*above, one)) + 1 for other in edges[one]), default=0)
        return found[one]

    for one in edges:
        rank(one, ())
    return found


def direct(edges: Edges) -> dict[str, list[str]]:
    """The edges that no longer way implies: what is drawn."""

    def below(one: str) -> set[str]:
        return set(edges[one]).union(*(below(other) for other in edges[one]))

    return {one: sorted(o for o in edges[one] if not any(o in below(p) for p in edges[one])) for one in edges}


def svg(edges: Edges) -> str:
    """The picture: a row for each rank, an arrow from each layer to those that it imports directly."""
    row = ranks(edges)
    rows = [sorted(one for one in row if row[one] == k) for k in range(max(row.values()) + 1)]
    width, height = max(len(each) for each in rows) * (WIDTH + 60) - 20, len(rows) * ROW + 10
    # Columns, not centred rows: an arrow that passes a row by then runs between its boxes.
    at = {
        one: (20 + WIDTH / 2 + k * (WIDTH + 60), height - 10 - ROW / 2 - n * ROW)
        for n, each in enumerate(rows)
        for k, one in enumerate(each)
    }
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img" '
        'aria-label="Layers of distseq and their imports" font-family="sans-serif" font-size="14">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#888"/></marker></defs>',
    ]
    for one, others in direct(edges).items():
        for other in others:
            (x, y), (to_x, to_y) = at[one], at[other]
            # Towards the other column, so that the arrow clears the box below its own.
            lean = 0.4 * WIDTH * ((to_x > x) - (to_x < x))
            ends = f'x1="{x + lean:.0f}" y1="{y + HEIGHT / 2:.0f}" x2="{to_x - lean:.0f}" y2="{to_y - HEIGHT / 2:.0f}"'
            lines.append(f'<line {ends} stroke="#888" marker-end="url(#tip)"/>')
    for one, (x, y) in at.items():
        box = f'x="{x - WIDTH / 2:.0f}" y="{y - HEIGHT / 2:.0f}" width="{WIDTH}" height="{HEIGHT}" rx="4"'
        lines.append(f'<rect {box} fill="#eef3fa" stroke="#4a6fa5"/>')
        lines.append(f'<text x="{x:.0f}" y="{y + 5:.0f}" text-anchor="middle" fill="#1a1a1a">{one}</text>')
    return "\n".join([*lines, "</svg>"])


def layers(root: Path) -> str:
    """The picture, as Markdown."""
    return f"```{{raw}} html\n{svg(imports(root))}\n```"


def files(root: Path) -> str:
    """A table for each folder: file, and the first line of its docstring."""
    folders: dict[str, list[str]] = {}
    for path in paths(root):
        text = ast.get_docstring(ast.parse((root / path).read_text(encoding="utf-8")))
        if path.name == "__init__.py" and not text:
            continue
        first = (text or "").strip().split("\n\n")[0].replace("\n", " ")
        escaped = first.replace("|", "\\|").replace("<", "\\<").replace("*", "\\*").replace("[", "\\[")
        folders.setdefault(path.parent.as_posix(), []).append(f"| `{path.name}` | {escaped} |")
    parts = [
        f"### {folder}/\n\n| file | what it is |\n|---|---|\n" + "\n".join(rows) for folder, rows in folders.items()
    ]
    return "\n\n".join(parts)


if __name__ == "__main__":
    sys.stdout.write(svg(imports(Path(__file__).resolve().parents[2])) + "\n")
