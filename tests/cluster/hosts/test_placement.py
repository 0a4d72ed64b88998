"""Who stands in for whom, and who comes and goes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distseq.cluster.hosts.placement import HostSlot, Placement


def seated(n: int, hosts: int, most: int, *, elastic: bool = False) -> Placement:
    seats = Placement(n, most, elastic)
    seats.placed = [HostSlot(f"host-{j}", None, 0.0, living=True) for j in range(hosts)]
    return seats


def test_neighbours_live_on_different_hosts_and_a_dead_one_is_stood_in_for() -> None:
    seats = seated(6, 3, 3)
    assert list(seats.members().values()) == ["host-0", "host-1", "host-2"] * 2
    dead = seats.placed[1]
    successor = HostSlot("host-1", None, 0.0)
    seats.replace(dead, successor)
    assert list(seats.members().values()) == ["host-0", "host-2", "host-2", "host-0", "host-0", "host-2"]
    assert not seats.arrive(successor)
    assert list(seats.members().values()) == ["host-0", "host-1", "host-2"] * 2


def test_where_nobody_lives_the_worker_s_own_seat_waits_for_it() -> None:
    seats = seated(2, 2, 2)
    for seat in seats.placed:
        seat.living = False
    assert seats.home(1) is seats.placed[1]
    assert not seats.others_live(seats.placed[0])
    assert seats.resize(1) == ([], [])


@pytest.mark.parametrize(("elastic", "workers"), [(False, [4, 4, 4]), (True, [2, 3, 2])])
def test_with_elastic_a_host_that_joins_is_a_worker(elastic: bool, workers: list[int]) -> None:
    seats = seated(4, 2, 4, elastic=elastic)
    counted = [len(seats.members())]
    leaving, names = seats.resize(3)
    assert (leaving, names) == ([], ["host-2"])
    seats.coming = [HostSlot("host-2", None, 0.0)]
    assert seats.resize(3) == ([], [])
    assert seats.arrive(seats.coming[0])
    counted.append(len(seats.members()))
    seats.leave(seats.placed[0])
    counted.append(len(seats.members()))
    assert counted == workers
    assert seats.resize(3)[1] == ["host-0"]


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.integers(0, 3), st.integers(0, 12), st.integers(1, 12))
def test_only_who_does_not_live_leaves_and_no_more_than_there_is_room_for_come(
    living: list[bool], coming: int, room: int, most: int
) -> None:
    seats = seated(12, len(living), most)
    for seat, lives in zip(seats.placed, living, strict=True):
        seat.living = lives
    seats.coming = [HostSlot(f"host-{len(living) + k}", None, 0.0) for k in range(coming)]
    leaving, names = seats.resize(room)
    assert not any(seat.living for seat in leaving)
    assert not leaving or any(living)
    assert not set(names) & {seat.name for seat in seats.all()}
    if names:
        assert not leaving
        assert len(seats.all()) + len(names) == min(room, most)
