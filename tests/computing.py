"""Which tests only compute: they may run beside any other, on as many cores as there are (`make test`).

All other tests are one group, which pytest-xdist gives to one of its processes, where they run one after another: those of files
that are not named here, and those that start Ray or a pool. tests/conftest.py makes the group and holds the named to their name.
"""

from pathlib import Path

import pytest

TESTS = Path(__file__).parent
FOLDERS = ("coding", "kernels", "models")
FILES = ("test_layers.py", "test_mutants.py", "test_packaging.py")
OF_DISTSEQ = (  # tests/distseq/test_*.py
    *(
        "adaptive",
        "backup",
        "candidates",
        "checkpoint",
        "cli",
        "comparing",
        "config",
        "contract",
        "evidence",
        "exactness",
    ),
    *(
        "journal",
        "pipeline",
        "planning",
        "plotting",
        "prediction",
        "regimes",
        "replay",
        "rounds",
        "schedule",
        "simulate",
    ),
    "timeline",
)
COMPUTING = [TESTS / name for name in (*FOLDERS, *FILES, *(f"distseq/test_{name}.py" for name in OF_DISTSEQ))]
POOLS = {"ray_session", "real_pool", "any_pool", "cluster"}  # fixtures
MARKS = ("ray", "alone")


def only_computes(item: pytest.Function) -> bool:
    """Whether it needs nothing of the machine but a core."""
    if POOLS & {*item.fixturenames} or any(item.get_closest_marker(mark) for mark in MARKS):
        return False
    return any(item.path.is_relative_to(path) for path in COMPUTING)
