"""`folder:DIR`: all text files below a folder as one text."""

from pathlib import Path

from distseq.models.text import Text, read_text


def open_folder(path: str, window: int = 128) -> Text:
    """Every *.txt below `path`, UTF-8, sorted by its path in there, joined by newlines. ValueError when there is none."""
    root = Path(path)
    if not root.is_dir():
        raise ValueError(f"can't read data 'folder:{path}': there is no such folder")
    files = sorted((p for p in root.rglob("*.txt") if p.is_file()), key=lambda p: p.relative_to(root).parts)
    if not files:
        raise ValueError(f"data 'folder:{path}' hold no *.txt file")
    return Text("\n".join(read_text(str(file)) for file in files), window)
