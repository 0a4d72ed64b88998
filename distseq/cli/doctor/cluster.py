"""Checks of a running Ray cluster, made from this machine or from the cluster's head."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

from distseq.cli.doctor.findings import Check, Finding, Subject, UnknownError, count, ok
from distseq.cli.doctor.machine import OPTIONAL, at_least, requirements
from distseq.cluster.ray import check_installed
from distseq.config.schema import PoolConfig

GiB = 1 << 30
SHOWN = ("python", "ray", "torch", "distseq")


def nodes(subject: Subject) -> dict[str, Any]:
    """The cluster's inventory (distseq.cluster.ray.inventory). UnknownError without a cluster."""
    pool = _pool(subject)
    address = _address(subject, pool)
    return subject.once("nodes", lambda: _survey(address, subject, pool))


def _pool(subject: Subject) -> PoolConfig:
    """The [pool] of the config file; the default one where there is no file, or none that can be read."""
    if subject.config is None:
        return PoolConfig()
    # Only now: it needs packages that may be missing, which is for other checks to say.
    from distseq.config.toml_file import load_config

    try:
        # Not once: what is wrong with the file is another check's to say.
        return load_config(subject.config).pool
    except ValueError:
        return PoolConfig()


def _address(subject: Subject, pool: PoolConfig) -> str:
    """The cluster that a run would use. UnknownError where it would use none."""
    address = subject.address or pool.address or os.environ.get("RAY_ADDRESS", "")
    if (subject.address is None and pool.kind != "ray") or address in ("", "local"):
        raise UnknownError("no cluster")
    return address


def _survey(address: str, subject: Subject, pool: PoolConfig) -> dict[str, Any]:
    check_installed("a look at a cluster")
    from distseq.cluster.ray.inventory import survey
    from distseq.cluster.ray.session import Access

    token_file = str(subject.token_file or pool.token_file)
    _, needed = subject.once("requirements", requirements)
    return survey(
        Access(address, token_file, subject.insecure or pool.insecure),
        subject.python,
        [*(one.name for one in needed), "distseq"],
    )


def reachable(subject: Subject) -> list[Finding]:
    found = nodes(subject)["nodes"]
    cpus, memory = (sum(node[key] for node in found) for key in ("cpus", "memory"))
    nodes_ = count(len(found), "node")
    address = _address(subject, _pool(subject))
    return ok("cluster", f"{address}: {nodes_}, {cpus:g} CPUs, {memory / GiB:.0f} GiB for tasks")


def versions(subject: Subject) -> Iterator[Finding]:
    """Compares the versions on every node with the driver's."""
    found = nodes(subject)
    least, _ = subject.once("requirements", requirements)
    for node in found["nodes"]:
        about = f"node {node['node']}"
        if node["versions"] is None:
            # The probe is a task: a node that never answered it would not run actors, either.
            yield Finding(about, "error", "does not run tasks: see its raylet.out in /tmp/ray/session_latest/logs")
            continue
        wrong = list(
            differences(node["versions"], found["driver"], least, submits="://" in _address(subject, _pool(subject)))
        )
        level = "error" if any(level == "error" for level, _ in wrong) else "warning" if wrong else "ok"
        about_it = ", ".join(f"{name} {node['versions'][name] or 'missing'}" for name in SHOWN)
        yield Finding(about, level, f"{node['cpus']:g} CPUs, {about_it}" + "".join(f"; {text}" for _, text in wrong))


def differences(
    node: Mapping[str, str | None], driver: Mapping[str, str | None], least: str, submits: bool
) -> Iterator[tuple[str, str]]:
    """Yields (level, text) for each problem with the versions on a node, compared with the driver's.

    least: the lowest Python; submits: runs come by `distseq submit`, which brings distseq along.
    """
    if not at_least(node["python"] or "", least):
        yield "error", f"distseq needs Python {least} or newer there"
    elif _minor(node["python"]) != _minor(driver["python"]):
        yield "error", f"the driver has Python {driver['python']}: install the same on every node"
    # Ray does not connect nodes of different versions.
    if node["ray"] != driver["ray"]:
        yield "error", f"the driver has Ray {driver['ray']}: install the same on every node"
    missing = [name for name, version in node.items() if version is None and name != "distseq"]
    needed = [name for name in missing if name not in OPTIONAL]
    for name in missing:
        if name in OPTIONAL:
            yield "warning", f"{name} is missing, needed only for {OPTIONAL[name]}"
    if needed:
        yield "error", f"{', '.join(needed)} missing: install on every node what distseq needs"
    # Only a warning: results stay right, but rows of different torch versions may differ in their last bits.
    elif node["torch"] != driver["torch"]:
        yield "warning", f"the driver has torch {driver['torch'] or 'missing'}: replicas may differ in their last bits"
    if not submits and node["distseq"] is None:
        yield "warning", "distseq is missing there: install it, or use distseq submit, which brings it"
    elif not submits and node["distseq"] != driver["distseq"]:
        yield "warning", f"the driver has distseq {driver['distseq'] or 'missing'}: install the same on every node"


def _minor(version: str | None) -> list[str]:
    return (version or "").split(".")[:2]


CHECKS: list[tuple[str, Check]] = [("cluster", reachable), ("nodes", versions)]
