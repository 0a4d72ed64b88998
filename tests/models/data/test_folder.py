"""All text files below a folder are one text, in the order of their paths."""

from pathlib import Path

import pytest

from distseq.models.data.dataset import open_dataset
from distseq.models.data.text import Text, notes


def test_the_text_of_a_folder_is_its_files_joined_in_the_order_of_their_paths(tmp_path: Path) -> None:
    for name, text in {"b.txt": "second", "a/z.txt": "first", "c/a/x.txt": "fourth", "b1.txt": "third"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "a" / "notes.md").write_text("not this")
    (tmp_path / "folder.txt").mkdir()
    data = open_dataset(f"folder:{tmp_path}", window=2)
    assert data.fingerprint == Text("first\nsecond\nthird\nfourth", window=2).fingerprint


def test_a_folder_that_holds_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^can't read data 'folder:.*/gone': there is no such folder$"):
        open_dataset(f"folder:{tmp_path}/gone")
    with pytest.raises(ValueError, match=r"^data 'folder:.*' has no \*\.txt file$"):
        open_dataset(f"folder:{tmp_path}")
    (tmp_path / "latin.txt").write_bytes(b"gr\xf6\xdfer")
    with pytest.raises(ValueError, match=r"^text file '.*latin\.txt' is not UTF-8: .* at byte 2$"):
        open_dataset(f"folder:{tmp_path}")


def test_links_and_endings_in_capitals_are_part_of_the_text(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    (elsewhere / "deep").mkdir(parents=True)
    root.mkdir()
    (root / "a.TXT").write_text("first")
    (elsewhere / "deep" / "x.txt").write_text("second")
    (elsewhere / "y.txt").write_text("third")
    (root / "b").symlink_to(elsewhere)
    (root / "c.txt").symlink_to(elsewhere / "y.txt")
    data = open_dataset(f"folder:{root}", window=2)
    assert data.fingerprint == Text("first\nsecond\nthird\nthird", window=2).fingerprint
    assert notes(data) == ()


def test_what_is_left_out_of_a_folder_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("something to learn from")
    (tmp_path / ".hidden").write_text("")
    (tmp_path / "read.me").write_text("")
    assert notes(open_dataset(f"folder:{tmp_path}", window=2)) == (
        f"data 'folder:{tmp_path}' leaves out 1 file that is not *.txt: read.me",
    )
    (tmp_path / "sub").mkdir()
    for name in ("sub/b.md", "sub/c.text", "z.csv", "zz"):
        (tmp_path / name).write_text("")
    assert notes(open_dataset(f"folder:{tmp_path}", window=2)) == (
        f"data 'folder:{tmp_path}' leaves out 5 files that are not *.txt: read.me, sub/b.md, sub/c.text ...",
    )


def test_a_link_that_leads_nowhere_or_in_a_circle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("something to learn from")
    (tmp_path / ".#a.txt").symlink_to("editor@host")
    assert len(open_dataset(f"folder:{tmp_path}", window=2)) > 0
    (tmp_path / "gone.txt").symlink_to("nowhere")
    with pytest.raises(ValueError, match=r"^can't read data 'folder:.*': .*/gone\.txt is a link to nothing$"):
        open_dataset(f"folder:{tmp_path}")
    (tmp_path / "gone.txt").unlink()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    with pytest.raises(
        ValueError, match=r"^can't read data 'folder:.*': .*/sub/up is a link to a folder that it lies in$"
    ):
        open_dataset(f"folder:{tmp_path}")
