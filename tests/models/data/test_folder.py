"""All text files below a folder are one text, in the order of their paths."""

from pathlib import Path

import pytest

from distseq.models.data.dataset import open_dataset
from distseq.models.data.text import Text


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
