"""Damaged and hostile files of every kind are read or refused in one line, within time and memory."""

from pathlib import Path

import pytest

from distseq.coding import npz_file
from tests.fuzz.harness import fuzz
from tests.fuzz.kinds import KINDS

# Mutants may make numpy and torch warn.
pytestmark = pytest.mark.filterwarnings("ignore")
# Those of `make test`; `make fuzz` reads 10,000 of each kind.
MUTANTS = 500


@pytest.mark.parametrize("kind", KINDS)
def test_mutants_are_read_or_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    report = fuzz(KINDS[kind], range(MUTANTS), tmp_path)
    assert report.failures == []
    # A sample in which nearly all are refused, or none, would try only one half of the reader.
    assert report.outcomes["read"] >= MUTANTS // 50
    assert report.outcomes.total() == MUTANTS


def test_a_check_that_is_missing_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An .npz whose header tells another size than the file has makes numpy allocate what it tells."""
    monkeypatch.setattr(npz_file, "check_header", lambda file, name, size: None)
    failures = fuzz(KINDS["arrays"], range(300), tmp_path).failures
    assert any("memory was asked for that is not there" in each or "MB allocated" in each for each in failures)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_many_mutants_are_read_or_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    report = fuzz(KINDS[kind], range(MUTANTS, 10_000), tmp_path)
    print(report)
    assert report.failures == []
