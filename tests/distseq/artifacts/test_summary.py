"""The table of a summary has a column for every figure that some model has, and no other."""

import io
from typing import Any

import pytest
from rich.console import Console

from distseq.artifacts.summary import show

BITS, LOSS = ["held-out bits/char", "unigram bits/char"], ["held-out loss"]


@pytest.mark.parametrize(
    ("figures", "shown", "hidden"),
    [
        ({"bits_per_char": 2.5, "unigram_bits_per_char": 4.1, "evaluation_loss": 1.73}, BITS, LOSS),
        ({"evaluation_loss": 0.25}, LOSS, BITS),
        ({}, [], [*BITS, *LOSS]),
    ],
)
def test_only_figures_that_there_are_have_a_column(
    figures: dict[str, float], shown: list[str], hidden: list[str]
) -> None:
    summary: dict[str, Any] = {
        "models": {"one": {"steps": 3, "training_loss": 0.5, **figures}},
        "jobs": 3,
        "rounds": 0,
        "total_seconds": 1.5,
        "seconds_per_job": 0.5,
        "scheme": "auto",
        "exact": True,
        "replayed_seconds_per_job": {"auto": 0.5},
        "gradients_checked": 0,
    }
    printed = io.StringIO()
    show(Console(file=printed, width=200), summary, "runs/one")
    assert all(heading in printed.getvalue() for heading in [*shown, "training loss"])
    assert not any(heading in printed.getvalue() for heading in hidden)
