"""The number of CPUs that this process may use, which on shared machines and in containers is less than the machine has."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")


def usable_cpus() -> int:
    """At least 1: the CPUs of this process's affinity mask, or fewer where a cgroup (of a container, of a batch job) has a quota.

    >>> 1 <= usable_cpus() <= os.cpu_count()
    True
    """
    # macOS has no affinity masks.
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # Rounded up, as the JVM does: with 1.5 CPUs, two hosts use what one would leave idle.
    return max(1, min([allowed, *(math.ceil(cpus) for cpus in quotas())]))


def quotas(cgroups: Path = CGROUPS, own: Path = OWN_CGROUPS) -> Iterator[float]:
    """The quotas, in CPUs, of this process's cgroup and of those above it, under version 1 or 2 of the interface."""
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except (OSError, UnicodeDecodeError):
        return  # no Linux
    for number, controllers, path in (line for line in lines if len(line) == 3):
        if number == "0":
            yield from _of_version_2(cgroups, path)
        elif "cpu" in controllers.split(","):
            yield from _of_version_1(cgroups / "cpu", path)


def _of_version_2(mount: Path, path: str) -> Iterator[float]:
    """`cpu.max` holds "QUOTA PERIOD" in microseconds, or "max PERIOD"."""
    for folder in _upwards(mount, path):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        yield from _cpus(quota, period)


def _of_version_1(mount: Path, path: str) -> Iterator[float]:
    """A quota of -1 means that there is none."""
    for folder in _upwards(mount, path):
        yield from _cpus(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    # A quota higher up binds, too. In a container the path may be the host's, of which only the root is mounted here.
    folder = mount / path.lstrip("/")
    yield from (one for one in (folder, *folder.parents) if one.is_relative_to(mount))


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _cpus(quota: str, period: str) -> Iterator[float]:
    if quota.isdecimal() and period.isdecimal() and int(quota) and int(period):
        yield int(quota) / int(period)
