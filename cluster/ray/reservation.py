"""Reserves the resources of a pool's hosts: all or none, with what is awaited said while it waits.

In an actor or a trial whose placement group captures its children, the hosts belong into that group. Anywhere else they get one
of their own, which also is what asks a cluster's autoscaler for nodes.
"""

import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray.util.placement_group import (
    PlacementGroup,
    get_current_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from distseq.cluster.errors import PoolError
from distseq.cluster.ray.address import JOB
from distseq.cluster.ray.resources import HostResources
from distseq.cluster.ray.session import starter

# Seconds before the first line about a wait, which a free cluster never needs, and between two lines.
FIRST, AGAIN = 1.0, 15.0
PREFIX = "distseq-"  # of the names of our placement groups, by which another run recognizes them


class Patience:
    """Says what is awaited, at once and again, and when to give up.

    within: seconds until `over`; say: takes the lines.
    """

    def __init__(self, within: float, say: Callable[[str], object]) -> None:
        self._say, self._within = say, within
        self._begun = time.monotonic()
        self._next = self._begun + FIRST

    def over(self) -> bool:
        return time.monotonic() - self._begun > self._within

    def pause(self) -> float:
        """Seconds to wait before the next look: at most 1, so that a stop is seen within that."""
        return min(1.0, max(0.0, self._begun + self._within - time.monotonic()) + 0.01)

    def tell(self, awaited: Callable[[], str]) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + AGAIN
            self._say(f"waiting for {awaited()} ({now - self._begun:.0f} s of at most {self._within:g}, ready_within)")


class Reservation:
    """Resources for up to `room` hosts; `strategy` is where a host goes, `close` gives back what was reserved."""

    def __init__(self, resources: HostResources, outer: PlacementGroup | None) -> None:
        self._resources, self._outer = resources, outer
        self._own: PlacementGroup | None = None
        self.name = f"{PREFIX}{secrets.token_hex(4)} ({_who()})"

    def room(self) -> int:
        """How many hosts fit, if nobody else uses the room: on the nodes there are, or in the placement group around us."""
        # Totals and not what is free, since what this pool's own hosts occupy must count as room for them.
        if self._outer is None:
            return sum(self._resources.room(node["Resources"]) for node in ray.nodes() if node["Alive"])
        bundles = placement_group_table(self._outer)["bundles"].values()
        return sum(map(self._resources.room, _without(bundles, _assigned())))

    def check(self, hosts: int) -> None:
        """ValueError if so many hosts can never fit."""
        room, problem = self.room(), f"{hosts} hosts of {self._resources} do not fit"
        if self._outer is not None and hosts > room:
            raise ValueError(
                f"{problem} into the placement group of this actor or trial, which has room for {room} beside itself: reserve "
                "a bundle for each host (in Ray Tune: tune.PlacementGroupFactory([{'CPU': 1}] + [{'CPU': 1}] * HOSTS)), take "
                "fewer hosts, or train with pool local"
            )
        # A Ray that this process has started gets no more nodes; what an autoscaler may add to a cluster, it does not tell.
        if self._outer is None and starter() and hosts > room:
            raise ValueError(f"{problem}: the cluster has room for {room}")

    def reserve(self, hosts: int, within: float, say: Callable[[str], object]) -> None:
        """Blocks until there is room for so many hosts. PoolError if that takes longer than `within` seconds."""
        if self._outer is not None:
            return
        # SPREAD: a node that leaves then takes few hosts with it, and replicas on neighbouring hosts are on different machines.
        self._own = placement_group([self._resources.bundle()] * hosts, strategy="SPREAD", name=self.name)
        patience = Patience(within, say)
        while not self._own.wait(patience.pause()):
            awaited = f"{hosts} hosts of {self._resources}: {self._held()}{self._lacking(hosts)}"
            if patience.over():
                raise PoolError(
                    f"the cluster had no room within {within:g} s for {awaited}; wait longer with ready_within, or take "
                    "fewer hosts"
                )
            patience.tell(lambda awaited=awaited: awaited)  # type: ignore[misc]

    def strategy(self, host: int) -> Any:
        """The scheduling strategy of the actor of host-`host`."""
        if self._outer is not None:
            return PlacementGroupSchedulingStrategy(self._outer)
        # A host that joins later has no bundle: it takes what a new node has.
        if self._own is None or host >= len(self._own.bundle_specs):
            return "SPREAD"
        return PlacementGroupSchedulingStrategy(self._own, host)

    def close(self) -> None:
        if self._own is not None and ray.is_initialized():
            remove_placement_group(self._own)
        self._own = None

    def _lacking(self, hosts: int) -> str:
        room = self.room()
        return (
            f"; the nodes have room for {room} hosts, so more must join or be added by an autoscaler"
            if hosts > room
            else ""
        )

    def _held(self) -> str:
        """Of each resource of a host, how much is free and who holds the rest."""
        free, total = ray.available_resources(), ray.cluster_resources()
        groups = [group for group in placement_group_table().values() if group["state"] == "CREATED"]
        return "; ".join(
            _shares(name, free.get(name, 0), total.get(name, 0), groups) for name in self._resources.bundle()
        )


def around() -> PlacementGroup | None:
    """The placement group of this actor or trial, if the actors that it starts belong into it."""
    # Ray's own rule: without capture, the group is not meant for children.
    captures = ray._private.worker.global_worker.should_capture_child_tasks_in_placement_group
    return get_current_placement_group() if captures else None


def _shares(name: str, free: float, total: float, groups: list[Mapping[str, Any]]) -> str:
    held = {_holder(group): sum(bundle.get(name, 0) for bundle in group["bundles"].values()) for group in groups}
    others = total - free - sum(held.values())
    # 0.001: Ray counts resources in steps of a ten-thousandth.
    shown = [f"{amount:g} held by {who}" for who, amount in held.items() if amount > 0.001]
    shown += [f"{others:g} by other actors and tasks"] if others > 0.001 else []
    return f"{free:g} of {total:g} {name} free" + (f", {', '.join(shown)}" if shown else "")


def _holder(group: Mapping[str, Any]) -> str:
    return group["name"] or f"placement group {group['placement_group_id'][:8]}"


def _who() -> str:
    """This process, in words that help to find it."""
    if JOB in os.environ:
        return f"Ray job {_submission()}"
    return f"process {os.getpid()} on {socket.gethostname()}"


def _submission() -> str:
    metadata = json.loads(os.environ[JOB]).get("metadata") or {}
    return str(metadata.get("job_submission_id") or ray.get_runtime_context().get_job_id())


def _assigned() -> dict[str, float]:
    """What this actor itself occupies, by plain names: within a group Ray reports CPU as CPU_group_0_ID, too."""
    found: dict[str, float] = {}
    for name, amount in ray.get_runtime_context().get_assigned_resources().items():
        plain = name.partition("_group_")[0]
        if plain != "bundle":
            found[plain] = max(found.get(plain, 0.0), float(amount))
    return found


def _without(bundles: Any, used: Mapping[str, float]) -> list[dict[str, float]]:
    """The bundles less what is used in the first that holds it."""
    left = [dict(bundle) for bundle in bundles]
    for bundle in left:
        if used and all(bundle.get(name, 0) >= amount for name, amount in used.items()):
            for name, amount in used.items():
                bundle[name] -= amount
            break
    return left
