"""make same-bytes OLD=COMMIT: does this checkout compute, to the byte, what an older one did?

Each comparison is of what both checkouts print or write under the same interpreter, so that no hash is kept anywhere:

weights    final weights of the main job, in virtual time
simulate   `distseq simulate --json` on traces and profiles
resume     weights of runs that the older checkout began and this one resumes, and of runs without a break

One line for each; exit code 1 when any differs.
"""

import argparse
import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
TRACES = ROOT.parent / "shared" / "traces"
STEPS, INTERRUPTED = 20, 5  # steps of each learner; lines of progress, each of four jobs, before the signal
JOB = ("--pool", "simulated", "--workers", "32", "--steps", str(STEPS))
# Four learners: a scheme may repeat for at most three rounds.
SCHEDULING = {
    "gc:1": ("--scheme", "gc:1"),
    "gc:2,code=cyclic": ("--scheme", "gc:2,code=cyclic"),
    "msgc:1,2,2": ("--scheme", "msgc:1,2,2"),
    "pipeline": ("--scheduler", "pipeline"),
    "auto": ("--scheduler", "auto"),
}
SEEDS = (0, 1)
RESUMED = ("gc:1", "msgc:1,2,2", "pipeline")
PROFILES = ("bursts", "heavy-tail")
SCHEMES = (
    *(
        "uncoded",
        "gc:7",
        "gc:3,code=cyclic",
        "gc:3,q=2",
        "srsgc:1,2,7",
        "msgc:1,2,7",
        "redispatch:2,copies=2",
        "backup:75",
    ),
    *("ksync:48", "async:2,parts=8"),
)
SIMULATIONS = {
    "schemes": (*(word for scheme in SCHEMES for word in ("--scheme", scheme)), "--inexact"),
    "pipeline": ("--scheduler", "pipeline", "--parts", "4", "--parts", "8"),
    "auto": (),
}


class Comparison(NamedTuple):
    kind: str
    what: str
    same: bool


class Checkout(NamedTuple):
    """A source tree, and the folder in which its commands run."""

    tree: Path
    folder: Path

    def start(self, *words: str) -> "subprocess.Popen[str]":
        environment = {k: v for k, v in os.environ.items() if not k.startswith("DISTSEQ_")}
        environment |= {"PYTHONPATH": str(self.tree), "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [sys.executable, *words], cwd=self.folder, env=environment, stdout=subprocess.PIPE, text=True
        )

    def run(self, *words: str) -> str:
        process = self.start(*words)
        said, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"{self.tree}: {' '.join(words)} ended with {process.returncode}")
        return said

    def check(self) -> None:
        """An editable install of another tree must not be what runs."""
        found = Path(self.run("-c", "import distseq; print(distseq.__file__)").strip())
        if not found.is_relative_to(self.tree):
            raise SystemExit(f"{self.tree} holds no distseq that runs from there: {found} was imported")

    def train(self, out: Path, *options: str) -> None:
        # The same config file for both: this checkout's.
        self.run("-m", "distseq", "train", str(ROOT / "examples" / "main.toml"), *JOB, *options, "--out", str(out))

    def interrupt(self, out: Path, *options: str) -> None:
        """A run that a signal ends in its middle, with a checkpoint."""
        command = ("train", str(ROOT / "examples" / "main.toml"), *JOB, *options, "--out", str(out))
        process = self.start("-m", "distseq", *command)
        assert process.stdout is not None
        jobs = (line for line in process.stdout if line.startswith("job "))
        for _, _ in zip(range(INTERRUPTED), jobs, strict=False):
            pass
        process.send_signal(signal.SIGTERM)
        process.communicate()
        if process.returncode != 128 + signal.SIGTERM:
            raise SystemExit(f"the run in {out} was not interrupted: it ended with {process.returncode}")


def weights(run: Path) -> dict[str, str]:
    """sha256 of each learner's file."""
    files = sorted((run / "weights").glob("*.safetensors"))
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def equal(old: Path, new: Path) -> bool:
    return bool(weights(old)) and weights(old) == weights(new)


def training(old: Checkout, new: Checkout, traces: Path) -> Iterator[Comparison]:
    for name, options in SCHEDULING.items():
        for seed in SEEDS:
            runs = [one.folder / f"{name}-{seed}" for one in (old, new)]
            for one, run in zip((old, new), runs, strict=True):
                one.train(run, *options, "--seed", str(seed))
            yield Comparison("weights", f"{name}, seed {seed}", equal(*runs))


def simulating(old: Checkout, new: Checkout, traces: Path) -> Iterator[Comparison]:
    delays = {path.name: ("--trace", str(path)) for path in sorted(traces.glob("*.npz"))}
    delays |= {name: ("--profile", name, "--workers", "64") for name in PROFILES}
    for place, source in delays.items():
        for name, options in SIMULATIONS.items():
            said = [one.run("-m", "distseq", "simulate", *source, *options, "--json") for one in (old, new)]
            yield Comparison("simulate", f"{name} on {place}", said[0] == said[1] != "")


def resuming(old: Checkout, new: Checkout, traces: Path) -> Iterator[Comparison]:
    for name in RESUMED:
        whole, run = new.folder / f"{name}-whole", old.folder / f"{name}-interrupted"
        new.train(whole, *SCHEDULING[name])
        old.interrupt(run, *SCHEDULING[name])
        new.run("-m", "distseq", "train", "--resume", str(run))
        yield Comparison("resume", name, equal(whole, run))


PARTS = {"weights": training, "simulate": simulating, "resume": resuming}


def unpacked(commit: str, folder: Path) -> Path:
    """The files of a commit."""
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", help="a commit, or the path of a checkout")
    parser.add_argument("--traces", type=Path, default=TRACES, help="folder of recorded traces (default: %(default)s)")
    parser.add_argument("--only", choices=PARTS, help="one of the three comparisons")
    options = parser.parse_args()
    if not list(options.traces.glob("*.npz")):
        parser.error(f"no traces in {options.traces}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        given = Path(options.old)
        tree = given.resolve() if given.is_dir() else unpacked(options.old, folder / "tree")
        old, new = Checkout(tree, folder / "old"), Checkout(ROOT, folder / "new")
        for one in (old, new):
            one.folder.mkdir()
            one.check()
        different = 0
        for part in [options.only] if options.only else PARTS:
            for one in PARTS[part](old, new, options.traces):
                different += not one.same
                print(f"{one.kind:<9} {one.what:<32} {'equal' if one.same else 'DIFFERENT'}", flush=True)
    sys.exit(f"{different} comparisons differ" if different else 0)


if __name__ == "__main__":
    main()
