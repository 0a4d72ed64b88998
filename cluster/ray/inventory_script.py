"""A script that prints what every node of a Ray cluster has, as one line of JSON.

    python inventory_script.py ADDRESS PACKAGE...

It imports nothing but Ray, so the cluster needs no distseq.
"""

import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

MARK = "distseq nodes: "
# Seconds a node may take to answer: it has to start a worker process, which takes seconds where the machine is busy.
SECONDS = 60.0


def versions(packages: list[str]) -> dict[str, str | None]:
    """Versions of Python and of packages in this process; None = not installed, "?" = installed, of unknown version."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "?" if importlib.util.find_spec(name) else None
    return found


def nodes(packages: list[str]) -> list[dict[str, Any]]:
    """Of each node that is alive: name, CPUs, all resources, bytes of memory and versions (None if it does not answer)."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    # num_cpus=0, so that a fully used node answers too; soft=False, so that no other node answers in its place.
    pending = [
        ray.remote(num_cpus=0)(versions)
        .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False), max_retries=0)
        .remote(packages)
        for node in alive
    ]
    done, _ = ray.wait(pending, num_returns=len(pending), timeout=SECONDS)
    return [
        {
            "node": node["NodeManagerHostname"],
            "cpus": node["Resources"].get("CPU", 0),
            "resources": node["Resources"],
            "memory": node["Resources"].get("memory", 0),
            "versions": _value(reference) if reference in done else None,
        }
        for node, reference in zip(alive, pending, strict=True)
    ]


def _value(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayError:
        return None


if __name__ == "__main__":
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level="error")
    names = sys.argv[2:]
    # A line of its own, also where a warning of Ray has left the cursor in the middle of one.
    print(f"\n{MARK}{json.dumps({'driver': versions(names), 'nodes': nodes(names)})}", flush=True)
