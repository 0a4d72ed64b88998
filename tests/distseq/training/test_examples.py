"""Every example trains, on a simulated pool, for a step or two."""

from pathlib import Path

import pytest
from rich.console import Console

import distseq

EXAMPLES = sorted((Path(__file__).resolve().parents[3] / "examples").glob("*.toml"))


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_trains(path: Path, tmp_path: Path) -> None:
    result = distseq.train(
        path,
        pool="simulated",
        workers=8,
        delays="none",
        steps=2,
        checks=1,
        out=tmp_path / "run",
        console=Console(quiet=True),
    )
    assert not result.summary["failures"]
    assert all(model["steps"] == 2 for model in result.summary["models"].values())
