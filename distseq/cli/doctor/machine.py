"""Checks of this machine: Python, packages, devices, shared memory, limits, a local pool."""

import importlib
import importlib.metadata
import os
import platform
import re
import resource
import shutil
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import distseq
from distseq.cli.doctor.findings import Check, Finding, Subject, error, ok, warning
from distseq.cluster.ray.auth_token import PLACES, client_token, readable_by_others
from distseq.cluster.system.cpus import usable_cpus

MiB = 1 << 20
OBJECT_STORE = 512 * MiB  # of the local Ray that `distseq train` starts
# Open files that a driver may need: sockets to Ray's own processes and to every host.
DESCRIPTORS = 4096
SHARED_MEMORY = Path("/dev/shm")
# Package -> the features that need it. Local and simulated pools, simulation and layers work without these.
OPTIONAL = {
    "ray": "pool ray, distseq submit and what doctor says of a cluster",
    "boto3": "aws: data",
    "triton": "Triton kernels",
}


class Requirement(NamedTuple):
    """A required package, its lowest version, and its line for pip."""

    name: str
    least: str
    line: str

    @property
    def install(self) -> str:
        return f"python -m pip install '{self.line}'"


def requirements() -> tuple[str, list[Requirement]]:
    """The lowest Python version and the packages that distseq needs on this platform."""
    # From the source tree if there is one: an editable installation's metadata may be older.
    tree = Path(distseq.__file__).resolve().parent.parent / "pyproject.toml"
    if tree.is_file():
        project = tomllib.loads(tree.read_text(encoding="utf-8"))["project"]
        lines, python = project["dependencies"], project["requires-python"]
    else:
        lines = importlib.metadata.requires("distseq") or []
        python = importlib.metadata.metadata("distseq")["Requires-Python"]
    return python.removeprefix(">="), [found for line in lines if (found := parse_requirement(line)) is not None]


def parse_requirement(line: str) -> Requirement | None:
    """Parses a line such as `name[extra]>=1.2; platform_system=='Linux'`; None if it does not apply here or is optional."""
    wanted, _, marker = line.partition(";")
    if "extra" in marker or ("platform_system" in marker and platform.system() not in marker):
        return None
    # Our own requirements have only this form: a parser of all that pip allows would be a dependency.
    match = re.fullmatch(r"([\w.-]+)(?:\[[^]]*\])?\s*>=\s*([\d.]+)", wanted.strip())
    if match is None:
        raise ValueError(f"cannot read the requirement {line!r}")
    return Requirement(match[1], match[2], wanted.strip())


def at_least(version: str, least: str) -> bool:
    """Whether a version such as 2.13.0+cpu is `least` or newer, by its numbers."""
    return _numbers(version) >= _numbers(least)


def _numbers(version: str) -> list[int]:
    numbers = re.match(r"\d+(\.\d+)*", version)
    return [int(number) for number in numbers[0].split(".")] if numbers else []


def python_version(subject: Subject) -> list[Finding]:
    version, (least, _) = platform.python_version(), subject.once("requirements", requirements)
    if not at_least(version, least):
        return error("Python", f"{version} is too old: distseq needs {least} or newer")
    return ok("Python", f"{version} (needs {least} or newer)")


def packages(subject: Subject) -> Iterator[Finding]:
    """A finding per package and, if some are missing, the command that installs all of these."""
    needed, missing = subject.once("requirements", requirements)[1], []
    for one in needed:
        found = package(one, importlib.metadata.version, importlib.import_module)
        if found.level != "ok":
            missing.append((one, found.level))
        yield found
    if missing:
        level = "error" if any(level == "error" for _, level in missing) else "warning"
        lines = " ".join(f"'{one.line}'" for one, _ in missing)
        yield Finding("packages", level, f"to install what is missing: python -m pip install {lines}")


def package(wanted: Requirement, version: Callable[[str], str], load: Callable[[str], object]) -> Finding:
    """Checks that a package is installed, new enough and can be imported; if one of OPTIONAL is missing, a warning."""
    name, least, _ = wanted
    try:
        found = version(name)
    except importlib.metadata.PackageNotFoundError:
        if name in OPTIONAL:
            return Finding(name, "warning", f"is not installed, needed only for {OPTIONAL[name]}: {wanted.install}")
        return Finding(name, "error", f"is not installed: {wanted.install}")
    if not at_least(found, least):
        return Finding(name, "error", f"{found} is too old: {wanted.install}")
    try:
        # The name to import; metadata may be intact while the package is broken.
        load(name.replace("-", "_"))
    except Exception as failure:  # a broken installation may raise anything
        reason = " ".join(str(failure).split())
        return Finding(name, "error", f"{found} cannot be imported: {type(failure).__name__}: {reason}")
    return Finding(name, "ok", f"{found} (needs {least} or newer)")


def torch_devices(subject: Subject) -> list[Finding]:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    cuda = f"CUDA devices: {count}" if count else "no CUDA"
    return ok("torch devices", f"{torch.get_num_threads()} threads of {usable_cpus()} usable CPUs, {cuda}")


def shared_memory(subject: Subject) -> list[Finding]:
    if not SHARED_MEMORY.is_dir():
        # macOS has no /dev/shm.
        return ok("shared memory", f"{SHARED_MEMORY} is not used on {platform.system()}")
    return shared_memory_of(shutil.disk_usage(SHARED_MEMORY).free)


def shared_memory_of(free: int) -> list[Finding]:
    """Compares `free` bytes of shared memory with the size of a local Ray's object store."""
    text = f"{free / MiB:.0f} MiB free in {SHARED_MEMORY}"
    if free < OBJECT_STORE:
        # Docker's default is 64 MB.
        advice = "Ray will use slow files instead; start a container with --shm-size (local pools do not need it)"
        return warning("shared memory", f"{text}, a local Ray needs {OBJECT_STORE / MiB:.0f}: {advice}")
    return ok("shared memory", text)


def descriptors(subject: Subject) -> list[Finding]:
    return descriptors_of(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def descriptors_of(soft: int) -> list[Finding]:
    """Checks the soft limit of open files, RLIM_INFINITY for none."""
    text = "no limit" if soft == resource.RLIM_INFINITY else f"at most {soft}"
    if soft != resource.RLIM_INFINITY and soft < DESCRIPTORS:
        return warning("open files", f"{text}, which many workers exceed: ulimit -n {DESCRIPTORS}")
    return ok("open files", text)


def forkserver(subject: Subject) -> list[Finding]:
    """Computes one row on a local pool of one process."""
    from distseq.cluster.local.pool import local_pool
    from distseq.simulation.measure import probe, probe_spec

    pool = local_pool(1, probe_spec(0.0), hosts=1)
    try:
        probe(pool, 1, 1)
    finally:
        pool.close()
    return ok("local pool", "a process from a forkserver answers")


def token(subject: Subject) -> list[Finding]:
    """Finds the token for Ray clusters and sets Ray's variables."""
    # Before anything imports Ray, which reads them when it is imported.
    found = client_token(os.environ, Path.home(), subject.token_file)
    exposed = readable_by_others(os.environ, Path.home(), subject.token_file)
    os.environ |= found.variables
    if exposed is not None:
        return warning(
            "Ray token", f"from {found.source}, which other users of this machine can read: chmod 600 {exposed}"
        )
    if found.source is None:
        return ok("Ray token", f"none; clusters that require one will refuse this client. It is looked for in {PLACES}")
    return ok("Ray token", f"from {found.source}")


CHECKS: list[tuple[str, Check]] = [
    ("Python", python_version),
    ("Ray token", token),
    ("packages", packages),
    ("torch devices", torch_devices),
    ("shared memory", shared_memory),
    ("open files", descriptors),
    ("local pool", forkserver),
]
