"""A spec string opens the same dataset everywhere, and a wrong one says what would be right."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
import torch

import distseq.models
from distseq.models.data.aws_docs import aws_text
from distseq.models.data.dataset import Dataset, open_dataset
from distseq.models.data.text import Text

OWN = """
import numpy as np
import torch

class Squares:
    fingerprint = "0" * 64

    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def batch(self, indices):
        return {"squares": torch.from_numpy(indices**2)}
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules of a user: one with a dataset, one that needs a package that isn't there."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "squares_of_user.py").write_text(OWN)
    (tmp_path / "broken_of_user.py").write_text("import a_package_that_is_not_there")


def test_an_aws_spec_opens_the_text_of_the_service() -> None:
    data: Dataset = open_dataset("aws:sqs", window=32)
    assert data.fingerprint == Text(aws_text("sqs"), 32).fingerprint
    assert data.batch(np.array([0, 5]))["inputs"].shape == (2, 32)


def test_a_text_spec_opens_the_file(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("to be or not to be\n" * 10)
    assert open_dataset(f"text:{path}", window=4).fingerprint == Text(path.read_text(), 4).fingerprint


@pytest.mark.usefixtures("own")
def test_an_import_string_opens_a_class_of_the_user() -> None:
    data = open_dataset("squares_of_user:Squares", size=9)
    assert len(data) == 9
    assert data.batch(np.array([2, 3]))["squares"].equal(torch.tensor([4, 9]))


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("spec", ["", "aws", "gcp:storage", "no_package.here:Class", "squares_of_user:Cubes", ".x:Y"])
def test_an_unknown_spec_is_refused_with_the_known_prefixes(spec: str) -> None:
    with pytest.raises(
        ValueError,
        match=r"^unknown data set '.*known: aws:\.\.\., text:\.\.\., .*torch:\.\.\., events:\.\.\., or module:Class",
    ):
        open_dataset(spec)


def test_an_import_string_of_something_that_opens_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="data set 'sys:path' is refused, and nothing was called"):
        open_dataset("sys:path")


@pytest.mark.usefixtures("own")
def test_an_import_that_fails_inside_the_module_of_the_user_stays_visible() -> None:
    with pytest.raises(ValueError, match=r"cannot import 'broken_of_user:Class': .*a_package_that_is_not_there"):
        open_dataset("broken_of_user:Class")


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("spec", ["aws:sqs", "squares_of_user:Squares"])
def test_a_misspelt_argument_is_refused_by_name(spec: str) -> None:
    with pytest.raises(ValueError, match=f"^data set '{spec}' can't be opened with .*windw"):
        open_dataset(spec, windw=3)


@pytest.mark.usefixtures("own")
def test_a_module_that_ends_the_program_at_its_import_is_named(tmp_path: Path) -> None:
    (tmp_path / "script_of_user.py").write_text("import argparse\nargparse.ArgumentParser().error('no such option')\n")
    line = r"^cannot import 'script_of_user:Data': module script_of_user ends the program .*SystemExit: 2; .*no such"
    with pytest.raises(ValueError, match=line):
        open_dataset("script_of_user:Data")


@pytest.mark.parametrize("prefix", ["csv", "arrays", "parquet", "text"])
def test_what_is_no_file_is_refused_and_not_waited_for(prefix: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, why in (
        (tmp_path / "pipe", "it is not a regular file"),
        ("/dev/zero", "it is not a regular file"),
        (tmp_path, "Is a directory"),
        (f"{tmp_path}/a\0b", "embedded null byte"),
    ):
        with pytest.raises(ValueError, match=rf"^can't read .*: {why}$"):
            open_dataset(f"{prefix}:{path}")


def test_a_spec_that_is_no_text_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^a data set is named by text such as 'csv:FILE': got int$"):
        open_dataset(5)  # type: ignore[arg-type]


def test_the_folder_refuses_to_be_imported_under_its_own_name() -> None:
    spec = importlib.util.spec_from_file_location("models", distseq.models.__file__)
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(ImportError, match=r"^import distseq\.models, not models$"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
