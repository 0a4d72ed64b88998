"""make bench-seconds-per-job ARGS="--old COMMIT": seconds per job of the main job, beside those of an older commit.

Both run in turn in the environment of a user, without variables that set numbers of threads; the ratio is of medians.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from distseq.training.threads import VARIABLES

ROOT = Path(__file__).resolve().parents[2]


def checkout(commit: str, folder: Path) -> Path:
    """The files of a commit, in a folder."""
    packed = subprocess.run(["git", "archive", commit], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    subprocess.run(["tar", "x", "-C", folder], input=packed, check=True)
    return folder


def seconds_per_job(folder: Path, options: argparse.Namespace) -> float:
    """Of one run of the main job by the code in `folder`."""
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    with tempfile.TemporaryDirectory() as out:
        words = ["train", "examples/main.toml", "--pool", options.pool, "--steps", str(options.steps), "--json"]
        words += ["--delays", options.delays] if options.delays else []
        found = subprocess.run(
            [sys.executable, "-m", "distseq", *words, "--out", f"{out}/run"],
            cwd=folder,
            env=environment | {"PYTHONPATH": str(folder)},
            capture_output=True,
            text=True,
            check=False,
        )
    if found.returncode:
        raise SystemExit(found.stderr)
    summary = json.loads(found.stdout.splitlines()[-1])
    return float(summary["seconds_per_job"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--old", default="4b0ab9d", help="commit to compare with")
    parser.add_argument("--pool", default="local")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--delays", default="", help="in place of the job's own: none:base=0.001 leaves computing")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"load average {os.getloadavg()[0]:.1f}\n")
    with tempfile.TemporaryDirectory() as temporary:
        folders = {"now": ROOT, options.old: checkout(options.old, Path(temporary))}
        runs: dict[str, list[float]] = {name: [] for name in folders}
        # In turn, so that a load of the machine falls on both.
        for _ in range(options.repeat):
            for name, folder in folders.items():
                runs[name].append(seconds_per_job(folder, options))
    for name, seconds in runs.items():
        print(f"{name}: {statistics.median(seconds):.3f} s/job ({' '.join(f'{one:.3f}' for one in seconds)})")
    print(f"ratio {statistics.median(runs['now']) / statistics.median(runs[options.old]):.2f}")


if __name__ == "__main__":
    main()
