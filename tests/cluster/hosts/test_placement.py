"""Which host a worker is mapped to, and which hosts join or leave."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distseq.cluster.hosts.placement import HostSlot, Placement


def make_placement(n: int, hosts: int, most: int, *, elastic: bool = False) -> Placement:
    placement = Placement(n, most, elastic)
    placement.placed = [HostSlot(f"host-{j}", None, 0.0, ready=True) for j in range(hosts)]
    return placement


def test_neighbours_are_on_different_hosts_and_others_stand_in_for_a_dead_one() -> None:
    placement = make_placement(6, 3, 3)
    assert list(placement.members().values()) == ["host-0", "host-1", "host-2"] * 2
    dead = placement.placed[1]
    successor = HostSlot("host-1", None, 0.0)
    placement.replace(dead, successor)
    assert list(placement.members().values()) == ["host-0", "host-2", "host-2", "host-0", "host-0", "host-2"]
    assert not placement.mark_ready(successor)
    assert list(placement.members().values()) == ["host-0", "host-1", "host-2"] * 2


def test_while_no_host_is_ready_a_worker_stays_with_its_own() -> None:
    placement = make_placement(2, 2, 2)
    for slot in placement.placed:
        slot.ready = False
    assert placement.home(1) is placement.placed[1]
    assert not placement.others_ready(placement.placed[0])
    assert placement.resize(1) == ([], [])


@pytest.mark.parametrize(("elastic", "workers"), [(False, [4, 4, 4]), (True, [2, 3, 2])])
def test_with_elastic_a_host_that_joins_is_a_worker(elastic: bool, workers: list[int]) -> None:
    placement = make_placement(4, 2, 4, elastic=elastic)
    counted = [len(placement.members())]
    leaving, names = placement.resize(3)
    assert (leaving, names) == ([], ["host-2"])
    placement.joining = [HostSlot("host-2", None, 0.0)]
    assert placement.resize(3) == ([], [])
    assert placement.mark_ready(placement.joining[0])
    counted.append(len(placement.members()))
    placement.remove(placement.placed[0])
    counted.append(len(placement.members()))
    assert counted == workers
    assert placement.resize(3)[1] == ["host-0"]


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.integers(0, 3), st.integers(0, 12), st.integers(1, 12))
def test_only_hosts_that_are_not_ready_leave_and_no_more_join_than_there_is_room_for(
    ready: list[bool], joining: int, room: int, most: int
) -> None:
    placement = make_placement(12, len(ready), most)
    for slot, one in zip(placement.placed, ready, strict=True):
        slot.ready = one
    placement.joining = [HostSlot(f"host-{len(ready) + k}", None, 0.0) for k in range(joining)]
    leaving, names = placement.resize(room)
    assert not any(slot.ready for slot in leaving)
    assert not leaving or any(ready)
    assert not set(names) & {slot.name for slot in placement.all()}
    if names:
        assert not leaving
        assert len(placement.all()) + len(names) == min(room, most)
