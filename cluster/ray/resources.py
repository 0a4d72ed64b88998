"""Resources that each host reserves on a Ray cluster, and how many hosts fit on a node."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class HostResources:
    """Resources that each host reserves: CPUs, GPUs, and custom resources of the cluster by name.

    ValueError for negative amounts, or if all amounts are 0.
    """

    cpus: float = 1
    gpus: float = 0
    resources: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        amounts = {"cpus": self.cpus, "gpus": self.gpus, **self.resources}
        # `not >=` instead of `<`, so that nan is refused too.
        wrong = {name: amount for name, amount in amounts.items() if not amount >= 0}
        if wrong or not any(amounts.values()):
            raise ValueError(f"a host's resources must be >= 0, and one of them > 0: got {wrong or amounts}")

    def room(self, node: Mapping[str, float]) -> int:
        """How many hosts fit on a node with these resources."""
        # 1e-9 makes up for rounding: 0.3 CPUs hold three hosts of 0.1, but 0.3 / 0.1 < 3 in floating point.
        return min(int(node.get(name, 0) / amount + 1e-9) for name, amount in self.bundle().items())

    def bundle(self) -> dict[str, float]:
        """Amounts by Ray's names, without those that are 0."""
        wanted = {"CPU": self.cpus, "GPU": self.gpus, **self.resources}
        return {name: amount for name, amount in wanted.items() if amount}

    def __str__(self) -> str:
        return ", ".join(f"{amount:g} {name}" for name, amount in self.bundle().items())
