"""CPUs that a process may use: its affinity, and the quotas of its cgroups."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from distseq.cluster.system import cpus


def folders(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, [1.5]),
        ("0::/\n", {"cpu.max": "max 100000\n"}, []),
        ("0::/a/b\n", {"a/b/cpu.max": "400000 100000\n", "a/cpu.max": "200000 100000"}, [4.0, 2.0]),
        ("0::/of/the/host\n", {"cpu.max": "50000 100000"}, [0.5]),
        ("4:cpu,cpuacct:/x\n", {"cpu/x/cpu.cfs_quota_us": "300000\n", "cpu/x/cpu.cfs_period_us": "100000\n"}, [3.0]),
        ("4:cpu,cpuacct:/x\n", {"cpu/x/cpu.cfs_quota_us": "-1\n", "cpu/x/cpu.cfs_period_us": "100000\n"}, []),
        ("5:memory:/x\n", {"cpu/x/cpu.cfs_quota_us": "1\n", "cpu/x/cpu.cfs_period_us": "1\n"}, []),
        ("nonsense\n", {"cpu.max": "gibberish"}, []),
        ("0::/\n", {"cpu.max": "100000 0"}, []),
    ],
)
def test_quotas_of_both_versions_are_read(
    tmp_path: Path, own: str, files: dict[str, str], expected: list[float]
) -> None:
    (tmp_path / "own").write_text(own)
    found = cpus.quotas(folders(tmp_path / "mount", files), tmp_path / "own")
    assert list(found) == expected


def test_without_cgroups_there_is_no_quota(tmp_path: Path) -> None:
    assert list(cpus.quotas(tmp_path, tmp_path / "none")) == []


@pytest.mark.parametrize(("quota", "expected"), [([], 3), ([1.5], 2), ([0.2], 1), ([8.0], 3), ([8.0, 1.0], 1)])
def test_the_lower_of_affinity_and_quota_counts(
    monkeypatch: pytest.MonkeyPatch, quota: list[float], expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 4, 5})
    monkeypatch.setattr(cpus, "quotas", lambda: iter(quota))
    assert cpus.usable_cpus() == expected


def test_a_process_bound_to_one_cpu_has_one() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
        "from distseq.cluster.system.cpus import usable_cpus; print(usable_cpus())"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"
