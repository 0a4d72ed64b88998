"""The benchmark of the kernels runs, and its contenders compute the same."""

import csv
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_contender_agrees_and_has_its_row(tmp_path: Path) -> None:
    out = tmp_path / "kernels.csv"
    command = [sys.executable, "tests/bench/kernels.py", "--quick", "--repeat", "1", "--csv", str(out)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert {row["primitive"].split()[0] for row in rows} >= {
        "lstm",
        "gru",
        "scan",
        "linear_attention",
        "delta_rule",
        "fft_conv",
    }
    assert all(float(row["ours_ms"]) > 0 for row in rows)


def test_the_benchmark_for_a_gpu_runs_every_line() -> None:
    command = [sys.executable, "tests/bench/kernels_gpu.py", "--smoke"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("| lstm | B ") == 16
    assert ended.stdout.count("| delta_rule | B ") >= 1
