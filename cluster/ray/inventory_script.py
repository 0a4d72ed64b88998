"""A script: what is on every node of a Ray cluster, as one line of JSON. It imports Ray alone, so a node needs no distseq.

python ray_nodes.py ADDRESS PACKAGE...
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
SECONDS = 60.0  # that a node may take to answer


def versions(packages: list[str]) -> dict[str, str | None]:
    """Versions of Python and of packages in this process; None = it is not there, "?" = it is, and nothing says its version."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "?" if importlib.util.find_spec(name) else None
    return found


def nodes(packages: list[str]) -> list[dict[str, Any]]:
    """Name, CPUs, all resources, bytes of memory and versions (None: it does not answer) of each node that is alive."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    asked = [
        ray.remote(num_cpus=0)(versions)
        .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False), max_retries=0)
        .remote(packages)
        for node in alive
    ]
    done, _ = ray.wait(asked, num_returns=len(asked), timeout=SECONDS)
    return [
        {
            "node": node["NodeManagerHostname"],
            "cpus": node["Resources"].get("CPU", 0),
            "resources": node["Resources"],
            "memory": node["Resources"].get("memory", 0),
            "versions": _value(reference) if reference in done else None,
        }
        for node, reference in zip(alive, asked, strict=True)
    ]


def _value(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayError:
        return None


if __name__ == "__main__":
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level="error")
    asked = sys.argv[2:]
    print(f"\n{MARK}{json.dumps({'driver': versions(asked), 'nodes': nodes(asked)})}", flush=True)
