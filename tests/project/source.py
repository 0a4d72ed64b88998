"""What is read from the source text: the files of the five folders, their imports, their lines of code and of comments."""

import ast
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Most lines of code of each folder: imports, docstrings, comments and blank lines cost nothing.
LINES = {"coding": 1200, "cluster": 3700, "distseq": 9300, "kernels": 2800, "models": 3600}
SPACE = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


def sources(root: Path) -> list[Path]:
    """Every Python file of the five folders; the links in distseq/ are not followed."""
    return sorted(path for folder in LINES for path in (root / folder).rglob("*.py"))


def package(path: Path) -> tuple[str, ...]:
    """The package that a file's relative imports start from: coding/a/b.py -> distseq, coding, a."""
    return path.parent.parts if path.parts[0] == "distseq" else ("distseq", *path.parent.parts)


def imports(path: Path, text: str) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of everything that a file imports; the path is relative to the repository root."""
    for node in ast.walk(ast.parse(text, str(path))):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                start = package(path)[: len(package(path)) - level + 1] if level else ()
                base = ".".join((*start, module) if module else start)
                yield from ((node.lineno, f"{base}.{alias.name}") for alias in names)
            case ast.Call(
                func=ast.Name(id="__import__" | "import_module") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield node.lineno, name


def code_lines(text: str) -> int:
    """Lines that hold code, imports not counted."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    lines = {n for token in tokens if token.type not in SPACE for n in range(token.start[0], token.end[0] + 1)}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            lines -= set(range(node.lineno, (node.end_lineno or 0) + 1))
        elif isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            lines -= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return len(lines)


def comment_lines(text: str) -> int:
    """Lines that hold a comment, alone or behind code."""
    return sum(token.type == tokenize.COMMENT for token in tokenize.generate_tokens(io.StringIO(text).readline))


def functions(text: str) -> Iterator[tuple[str, int]]:
    """(name, lines from its def to its last) of each function and method."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1
