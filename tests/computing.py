"""Which tests only compute: they may run beside any other, on as many cores as there are (`make test`).

All others run one after another in one process: those of files that are not named here, and those that say that they are on Ray
or on a local pool. tests/conftest.py tells pytest-xdist so, and holds those that are named here to computing only.
"""

import re
from typing import Any

FOLDERS = (
    *("tests/coding/", "tests/kernels/", "tests/models/", "tests/project/"),
    *(f"tests/distseq/{folder}/" for folder in ("config", "scheduling", "simulation")),
)
FILES = {
    "tests/cluster/test_trace_csv.py",
    "tests/distseq/artifacts/test_checkpoint.py",
    "tests/distseq/cli/test_cli.py",
    "tests/distseq/engine/test_journal.py",
    "tests/distseq/gradients/test_passes.py",
    "tests/distseq/learners/test_contract.py",
    "tests/distseq/learners/test_lr_schedules.py",
    "tests/distseq/training/test_exactness.py",
}
# Of those folders, what starts pools.
BUT = {
    "tests/distseq/scheduling/test_asynchronous.py",
    "tests/distseq/simulation/test_measure.py",
    "tests/project/test_researcher.py",
}
# What these make is made once for a file.
TOGETHER = {"tests/kernels/test_triton_compile.py", "tests/project/test_packaging.py"}


def only_computes(nodeid: str) -> bool:
    """Whether a test needs nothing of the machine but a core, by its file and its name."""
    file = nodeid.partition("::")[0]
    return (
        file not in BUT
        and (file in FILES or file.startswith(FOLDERS))
        and not {"ray", "local"} & {*re.split("[^a-z]+", nodeid)}
    )


def scheduler(config: Any, log: Any) -> Any:
    """Of pytest-xdist: a test that only computes goes to whichever process is free, all others are one unit of work."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return file if file in TOGETHER else nodeid if only_computes(nodeid) else "one process"

    return Scheduling(config, log)
