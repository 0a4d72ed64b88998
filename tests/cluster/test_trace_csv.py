"""Traces as CSV: what a spreadsheet writes is read, and what is wrong is named by line and column."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distseq.cli.main import cli, one_line_errors
from distseq.cluster.profiles import delays, profile
from distseq.cluster.trace import Trace, load_trace
from distseq.simulation.plan import plan
from distseq.simulation.simulate import Setting, simulate
from tests.coding.strategies import PROPERTY, generators

HOLES = np.array([[0.5, 0.7], [0.6, np.inf]])


@PROPERTY
@given(size=st.tuples(st.integers(1, 6), st.integers(1, 6)), draws=generators(), slope=st.floats(0, 10))
def test_start_ups_are_read_back_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory, size: tuple[int, int], draws: np.random.Generator, slope: float
) -> None:
    times = draws.exponential(1.0, size) * 10.0 ** draws.integers(-12, 12, size)
    times[draws.random(size) < 0.2] = np.nan
    trace, path = Trace(times, 0.0, slope, 1.0), tmp_path_factory.getbasetemp() / "trace.csv"
    trace.save(path)
    read = load_trace(path)
    np.testing.assert_array_equal(read.startups(), trace.startups())
    assert (read.load, read.slope, read.master) == (0.0, 0.0, 0.0)
    np.testing.assert_array_equal(read.with_slope(slope).startups(), trace.startups())


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n0.5,0.7\n0.6,\n",
        "0.5,0.7\n0.6,inf\n",
        "worker 0, worker 1\r\n0.5, 0.7\r\n 6e-1 ,NaN\r\n",
        '"a","b"\n"0.5","0.7"\n"0.6",""',
        "\ufeff0.5,0.7\n0.6,Infinity\n\n\n",
    ],
)
def test_headers_holes_and_a_spreadsheet_s_ways_are_understood(tmp_path: Path, text: str) -> None:
    path = tmp_path / "delays.CSV"
    path.write_text(text, encoding="utf-8")
    np.testing.assert_array_equal(load_trace(path).startups(), HOLES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file has no row of seconds"),
        ("a,b\n", "the file has no row of seconds"),
        ("a,b\n0.5,0.7\n0.6,x\n", "line 3, column 2: 'x' is not a number of seconds"),
        ("a,1.5\n0.5,0.7\n", "line 1, column 1: 'a' is not a number of seconds"),
        ("a,b\n0.5,0.7\n0.6\n", "line 3 has 1 columns, but the first row has 2"),
        ("0.5;0.7\n", "line 1|the file has no row"),
        ("1,2\n0.5;0.7,1\n", "line 2, column 1: '0.5;0.7' is not a number of seconds"),
        ("0.5,-0.7\n", "line 1, column 2: -0.7 seconds are negative"),
        ("0.5,-inf\n", "line 1, column 2: -inf seconds are negative"),
        ("0.5,0.7\n1_0,0.7\n", "line 2, column 1: '1_0' is not a number of seconds"),
        ("0.5,0.7\n٣,0.7\n", "line 2, column 1: '٣' is not a number of seconds"),
        ("0.5,1e400\n", "line 1, column 2: 1e400 does not fit float64; write inf if it is lost"),
        (",a,b\n0,0.5,0.7\n", "line 1, column 1: the header has no name here"),
        ("0.5\n\n0.7\n", "line 2 is blank; write nan for a lost invocation"),
        ("0.5,\0\n", "line 1"),
        ("a,b\n0.5,\x00\n", "line 2"),
    ],
)
def test_a_bad_file_is_one_line_that_names_file_line_and_column(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"bad\.csv is not a trace: .*({message})") as error:
        load_trace(path)
    assert "\n" not in str(error.value)


def test_what_is_no_text_or_no_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ValueError, match=r"binary\.csv is not a trace: "):
        load_trace(tmp_path / "binary.csv")
    with pytest.raises(ValueError, match=r"folder\.csv is not a trace: .*Is a directory"):
        load_trace(tmp_path / "folder.csv")
    with pytest.raises(ValueError, match=r"no trace file .*gone\.csv"):
        load_trace(tmp_path / "gone.csv")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    profile("bursts", 8, 0).save(tmp_path / "delays.csv")
    return tmp_path / "delays.csv"


def test_a_csv_with_a_slope_simulates_and_plans_as_the_trace_that_it_was_saved_from(saved: Path) -> None:
    whole, slope = profile("bursts", 8, 0), profile("bursts", 8, 0).slope
    options: dict[str, Any] = {"models": 4, "jobs": 12}
    expected = simulate(Setting(whole, **options), "gc:1")
    assert simulate(Setting(load_trace(saved).with_slope(slope), **options), "gc:1") == expected
    assert plan(trace=saved, slope=slope)["candidates"] == plan(trace=whole)["candidates"]
    np.testing.assert_array_equal(delays(str(saved), 4, seed=0).times, whole.times[:, :4])


def test_the_command_takes_it(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def command(words: str) -> int:
        return one_line_errors(lambda: cli(words.split(), standalone_mode=False))

    assert command(f"simulate --trace {saved} --slope 2.2 --scheme gc:1 --jobs 8") == 0
    assert capsys.readouterr().out.startswith("8 workers, 4 models, 8 jobs")
    saved.write_text("0.5,x\n")
    assert command(f"simulate --trace {saved} --scheme gc:1") == 2
    assert capsys.readouterr().err == (
        f"error: {saved} is not a trace: line 1, column 2: 'x' is not a number of seconds\n"
    )


def test_a_cell_of_any_length_is_a_short_message(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,2\n1," + "x" * 5000)
    with pytest.raises(ValueError, match=r"line 3, column 2: 'x{100}\.\.\.' is not a number of seconds$"):
        load_trace(path)
