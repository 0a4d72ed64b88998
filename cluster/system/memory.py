"""How much memory this process and its children can still have."""

from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
UNLIMITED = 1 << 62


def available_memory(proc: Path = Path("/proc/meminfo"), cgroup: Path = CGROUP) -> int:
    """Bytes that are left on the machine and, in a container, below its limit. Very many where the system does not say."""
    return min(_of_machine(proc), _of_container(cgroup))


def _of_machine(proc: Path) -> int:
    try:
        return int(proc.read_text().partition("MemAvailable:")[2].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        return UNLIMITED


def _of_container(cgroup: Path) -> int:
    """Below memory.max of cgroup v2."""
    try:
        # "max" where there is none: int() then raises.
        left = int((cgroup / "memory.max").read_text()) - int((cgroup / "memory.current").read_text())
        found = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return UNLIMITED
    # The cache of files counts as used, but the system gives it back before it kills anybody.
    return max(0, left + int(found.get("inactive_file", 0)) + int(found.get("active_file", 0)))
