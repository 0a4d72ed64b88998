"""`distseq events` prints the statistics of a stream and which mode will pay."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from distseq.cli.main import cli, one_line_errors


def test_it_prints_a_table_and_one_line_of_advice() -> None:
    answer = CliRunner().invoke(cli, ["events", "flights", "--batch", "3200", "--batch", "200"])
    assert answer.exit_code == 0
    assert answer.output.splitlines() == [
        "flights: 40,000 events of 3,420 nodes in 68,493 units of time, 21 message features, 4.6 MB",
        "src repeats its last dst: 0.25, edge seen before: 0.56, time of the event before: 0.35",
        "batch  pending  dropped  depth  p95  max  events a level",
        "  200     0.70     0.36     12   14   16            16.5",
        " 3200     0.97     0.75    167  171  172            19.2",
        "parallel up to batch 200, exact above it (19 events a level at batch 3200); "
        "replay = 200 for models that do not fit exact",
    ]


def test_it_prints_json() -> None:
    answer = CliRunner().invoke(cli, ["events", "flights", "--json"])
    found = json.loads(answer.output)
    assert [one["batch"] for one in found["batches"]] == [50, 200, 800, 3200]
    assert (found["name"], found["events"], found["nodes"], found["features"]) == ("flights", 40_000, 3420, 21)
    assert found["batches"][-1]["depth_max"] == 172
    assert found["advice"].startswith("parallel up to batch 200")


def test_arguments_go_to_the_reader(tmp_path: Path) -> None:
    file = tmp_path / "e.csv"
    file.write_text("0,1,5\n0,1,4\n")
    options = ["--arg", "sort=true", "--arg", "delimiter=,", "--arg", 'columns="u v t"', "--json"]
    answer = CliRunner().invoke(cli, ["events", f"snap:{file}", *options])
    assert json.loads(answer.output)["span"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "error: unknown event data 'nowhere'; known: flights, sequence, hubs, jodie:PATH"),
        (["hubs", "--batch", "0"], "error: a temporal batch must hold at least 1 event: got 0"),
        (["hubs", "--arg", "ties"], "error: --arg takes KEY=VALUE: got 'ties'"),
        (["hubs", "--arg", "ties=7"], "error: hubs needs ties and loops in 0 .. 1: got ties=7"),
        (["jodie:none.csv"], "error: can't read data 'jodie:none.csv': No such file or directory"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = one_line_errors(lambda: cli(["events", *arguments], standalone_mode=False))
    assert code == 2
    printed = capsys.readouterr().err
    assert printed.startswith(message)
    assert printed.count("\n") == 1
