"""Pictures of a simulation: whole, of the format asked for, or one line and nothing."""

import sys
from pathlib import Path
from typing import Any

import pytest

from distseq.simulation.compare import best_of_families, simulate_schemes
from distseq.simulation.plot import COLOURS
from distseq.simulation.timeline import STRAGGLER, WORK
from tests.distseq.simulation.test_simulate import DEFAULTS

STARTS = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


def run(path: Path, **options: Any) -> list[dict[str, Any]]:
    usual = {"profile": "bursts", "workers": 6, "jobs": 16, "schemes": ["gc:1", "uncoded"], "plot": path}
    return simulate_schemes(**(DEFAULTS | usual | options))


def text(path: Path) -> str:
    """Comments of an SVG file hold the text that its glyphs draw."""
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("suffix", STARTS)
def test_a_plot_is_a_file_of_its_format_and_nothing_else(tmp_path: Path, suffix: str) -> None:
    results = run(tmp_path / f"plot.{suffix}", bounds=True)
    assert [path.name for path in tmp_path.iterdir()] == [f"plot.{suffix}"]
    assert (tmp_path / f"plot.{suffix}").read_bytes().startswith(STARTS[suffix])
    assert results == run(tmp_path / f"plot.{suffix}", bounds=True, plot=None), "drawing changes no result"


def test_schemes_bounds_and_the_best_are_named(tmp_path: Path) -> None:
    best, other = run(tmp_path / "two.svg", bounds=True)[:2]
    for words in (best["scheme"], other["scheme"], "genieWF (bound)", f"workers under {best['scheme']}"):
        assert f"<!-- {words} -->" in text(tmp_path / "two.svg")


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ({"schemes": [], "scheduler": "pipeline", "parts": [2], "copies": [3], "workers": 16}, set(COLOURS)),
        ({"schemes": ["gc:1"]}, {WORK, STRAGGLER}),
        ({"schemes": ["uncoded"]}, {WORK}),
    ],
    ids=["pipeline", "gc", "uncoded"],
)
def test_stragglers_and_copies_can_be_told_apart(tmp_path: Path, options: dict[str, Any], kinds: set[str]) -> None:
    run(tmp_path / "plot.svg", **options)
    # Of each kind there is a line in the legend, and more where workers did it.
    strokes = {kind: text(tmp_path / "plot.svg").count(f"stroke: {colour}") for kind, colour in COLOURS.items()}
    assert {kind for kind, count in strokes.items() if count > 1} == kinds


def test_a_sweep_draws_a_bar_for_the_best_of_each_family(tmp_path: Path) -> None:
    results = run(tmp_path / "sweep.svg", schemes=[], sweep=True)
    for result in best_of_families(results):
        assert f"<!-- {result['scheme']} -->" in text(tmp_path / "sweep.svg")
        assert f"<!-- {result['family']} -->" in text(tmp_path / "sweep.svg")
    assert f"<!-- {results[-1]['scheme']} -->" not in text(tmp_path / "sweep.svg"), (
        "the slowest of all is no family's best"
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("plot.gif", "a plot is written as .png, .svg, .pdf: got .*plot.gif"),
        ("plot", "a plot is written as .png, .svg, .pdf: got .*plot"),
        ("gone/plot.png", "cannot write plot .*plot.png: there is no folder .*gone"),
        ("taken.png", "cannot write plot .*taken.png: Is a directory"),
    ],
)
def test_a_plot_that_cannot_be_written_is_one_line_and_leaves_nothing(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(ValueError, match=message):
        run(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["taken.png"]


def test_without_matplotlib_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ValueError, match=r"a plot needs matplotlib, .*: python -m pip install matplotlib"):
        run(tmp_path / "plot.png")
    assert list(tmp_path.iterdir()) == []
