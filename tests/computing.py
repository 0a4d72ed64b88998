"""Which tests only compute, and how `make test` spreads tests over its processes.

A test that only computes is a unit of its own: whichever process is free takes it. Tests on Ray or on pools of processes are
units by file and pool, so that what a file makes is made once. Each process starts at most one Ray of its own, on first use.
tests/conftest.py fails a test that is said to compute only and starts a pool.
"""

import re
from typing import Any

FOLDERS = (
    # A page of the documentation starts what it starts in processes of its own, in a folder of its own.
    *("tests/coding/", "tests/differential/", "tests/docs/", "tests/kernels/", "tests/models/", "tests/project/"),
    *(
        f"tests/distseq/{folder}/"
        for folder in ("artifacts", "config", "engine", "gradients", "scheduling", "simulation")
    ),
)
FILES = {
    "tests/cluster/test_trace_csv.py",
    "tests/distseq/cli/test_cli.py",
    "tests/distseq/learners/test_contract.py",
    "tests/distseq/learners/test_lr_schedules.py",
    "tests/distseq/learners/test_muon.py",
    "tests/distseq/training/test_exactness.py",
}
# Of those folders, what starts pools and does not say "ray" or "local" in its name.
BUT = {"tests/distseq/gradients/test_data.py", "tests/distseq/simulation/test_measure.py"}
# What these make is made once: kernels of a case, a wheel, a Ray head that takes jobs.
TOGETHER = {
    "tests/kernels/test_triton_compile.py": "compiled kernels",
    "tests/project/test_packaging.py": "a wheel",
    "tests/cluster/ray/test_jobs.py": "a head",
    "tests/cluster/ray/test_submit.py": "a head",
}


def pools(nodeid: str) -> set[str]:
    """Those of a test that are named by its path or its parameters."""
    return {"ray", "local"} & {*re.split("[^a-z]+", nodeid)}


def only_computes(nodeid: str) -> bool:
    """Whether a test needs nothing of the machine but a core, by its file and its name."""
    file = nodeid.partition("::")[0]
    return file not in BUT and (file in FILES or file.startswith(FOLDERS)) and not pools(nodeid)


def unit(nodeid: str) -> str:
    """What of its name a test shares with those that must run in the same process, one after another."""
    file = nodeid.partition("::")[0]
    if file in TOGETHER:
        return TOGETHER[file]
    return nodeid if only_computes(nodeid) else f"{file} on {','.join(sorted(pools(nodeid)))}"


def scheduler(config: Any, log: Any) -> Any:
    """Of pytest-xdist: by units, those of many tests first, so that the small ones fill what is left of the time."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return unit(nodeid)

    return Scheduling(config, log)
