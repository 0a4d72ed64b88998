"""Prints what has grown: lines of code and comments of each folder, the largest files, fullest folders and longest functions.

python -m tests.project.sizes
"""

import signal
from collections import Counter
from collections.abc import Iterable

from tests.project.source import LINES, ROOT, code_lines, comment_lines, functions, sources

SHOWN = 10


def main() -> None:
    texts = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in sources(ROOT)}
    print("folder      code   bound  comments")
    for folder, bound in LINES.items():
        own = [text for path, text in texts.items() if path.startswith(f"{folder}/")]
        share = sum(map(comment_lines, own)) / sum(len(text.splitlines()) for text in own)
        print(f"{folder:<8} {sum(map(code_lines, own)):>7,} {bound:>7,}  {share:>8.1%}")
    show("lines of the largest files", ((len(text.splitlines()), path) for path, text in texts.items()))
    in_folders = Counter(path.rpartition("/")[0] for path in texts)
    show("files of the fullest folders", ((count, folder) for folder, count in in_folders.items()))
    named = ((lines, f"{name} in {path}") for path, text in texts.items() for name, lines in functions(text))
    show("lines of the longest functions", named)


def show(title: str, counted: Iterable[tuple[int, str]]) -> None:
    """The largest, one a line."""
    print(f"\n{title}")
    for count, what in sorted(counted, key=lambda one: (-one[0], one[1]))[:SHOWN]:
        print(f"{count:>6,}  {what}")


if __name__ == "__main__":
    # Quietly, as other filters end when nobody reads on (`make sizes | head`).
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    main()
