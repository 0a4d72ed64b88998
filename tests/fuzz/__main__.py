"""python -m tests.fuzz [COUNT [KIND [FIRST]]]: fuzzes all kinds of files, or one, and prints what became of the mutants."""

import sys
import tempfile
import warnings
from pathlib import Path

from tests.fuzz.harness import fuzz
from tests.fuzz.kinds import KINDS


def main(count: int = 10_000, kind: str | None = None, first: int = 0) -> int:
    # A mutant that is read with a warning is one of thousands.
    warnings.simplefilter("ignore")
    failures = []
    for one in [KINDS[kind]] if kind else KINDS.values():
        with tempfile.TemporaryDirectory() as folder:
            report = fuzz(one, range(first, first + count), Path(folder))
        print(report, flush=True)
        failures += report.failures
    for line in failures[:50]:
        print(line)
    print(f"{len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    count, kind, first = [*sys.argv[1:], "", "", ""][:3]
    sys.exit(main(int(count or 10_000), kind or None, int(first or 0)))
