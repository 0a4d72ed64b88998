"""What a host occupies of a cluster, and how many of them fit."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class HostResources:
    """What each host occupies of the cluster: CPUs, GPUs, and resources of the cluster's own naming."""

    cpus: float = 1
    gpus: float = 0
    resources: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        amounts = {"cpus": self.cpus, "gpus": self.gpus, **self.resources}
        wrong = {name: amount for name, amount in amounts.items() if not amount >= 0}
        if wrong or not any(amounts.values()):
            raise ValueError(f"a host needs amounts >= 0, and one of them > 0: got {wrong or amounts}")

    def room(self, node: Mapping[str, float]) -> int:
        """How many hosts fit on a node with these resources."""
        wanted = {"CPU": self.cpus, "GPU": self.gpus, **self.resources}
        return min(int(node.get(name, 0) / amount + 1e-9) for name, amount in wanted.items() if amount)

    def __str__(self) -> str:
        wanted = {"CPU": self.cpus, "GPU": self.gpus, **self.resources}
        return ", ".join(f"{amount:g} {name}" for name, amount in wanted.items() if amount)
