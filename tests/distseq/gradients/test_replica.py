"""A replica of memory: it goes forth and back, catches up from what a payload holds, and knows when it differs."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch

from distseq.cluster.carried import Carried, Held
from distseq.cluster.errors import StateError
from distseq.gradients.problem import load_vector, trained
from distseq.gradients.replica import LOG, Replica
from distseq.models.temporal import Graph, State, TemporalModel, changes
from distseq.models.temporal.epochs import Epochs
from distseq.models.temporal.packing import packed
from tests.models.temporal.streams import model_of, stream_of

EPOCHS = Epochs(events=110, batch=10)  # 11 batches
GRAPH = Graph(stream_of(events=120), 110)


def vectors(model: TemporalModel, count: int) -> list[np.ndarray]:
    flat = torch.cat([p.detach().flatten() for p in trained(model)]).numpy()
    draws = np.random.default_rng(0)
    return [flat + 0.01 * draws.standard_normal(flat.shape) for _ in range(count)]


def replica(model: TemporalModel) -> Replica:
    return Replica(model, GRAPH, EPOCHS, lambda vector: load_vector(trained(model), vector))


def plain(model: TemporalModel, given: list[np.ndarray]) -> list[State]:
    """The state before and after each batch of the first epoch."""
    states = [model.state(GRAPH)]
    for step, vector in enumerate(given):
        load_vector(trained(model), vector)
        state, batch = states[-1].copy(), EPOCHS.slice_of(step)
        state.apply(changes(model, GRAPH, state, batch), batch.stop)
        states.append(state)
    return states


@pytest.fixture(params=[{"mode": "exact"}, {"mode": "pres"}, {"preset": "apan"}], ids=["exact", "pres", "apan"])
def make(request: pytest.FixtureRequest) -> Callable[[], TemporalModel]:
    options = dict(request.param)
    return lambda: model_of(options.get("preset", "tgn"), **{k: v for k, v in options.items() if k != "preset"})


def test_it_goes_forth_and_back(make: Callable[[], TemporalModel]) -> None:
    model = make()
    given = vectors(model, 11)
    states, one = plain(make(), given), replica(model)
    for step, (_, after) in enumerate(pairwise(states)):
        one.take(given[step])
        one.advance()
        assert one.state.digest() == after.digest()
    for version in (9, 10, 11, 4, 7, 3, 11):
        found = one.at(version)
        assert found is not None
        assert found.digest() == states[version].digest()
        assert one.version == version
    assert one.at(11 - LOG - 1) is None, "the log is bounded"


def test_going_on_after_going_back_does_not_compute_again(make: Callable[[], TemporalModel]) -> None:
    model = make()
    given, one = vectors(model, 3), replica(model)
    for vector in given:
        one.take(vector)
        one.advance()
    expected = one.state.digest()
    one.at(1)
    one.take(np.zeros_like(given[0]))
    one.advance()
    one.advance()
    assert (one.version, one.state.digest()) == (3, expected)


def carried(states: list[State], given: list[np.ndarray], since: int, version: int) -> Carried:
    past = tuple(Held(vector) for vector in given[since:version])
    snapshot = Held(packed(states[since])) if since else None
    return Carried(EPOCHS.batch, version, states[version].digest(), since, snapshot, past)


@pytest.mark.parametrize(
    ("own", "since", "version"), [(0, 0, 4), (0, 3, 5), (2, 1, 5), (6, 1, 5), (9, 0, 0), (5, 5, 5)]
)
def test_it_catches_up_from_what_a_payload_holds(
    make: Callable[[], TemporalModel], own: int, since: int, version: int
) -> None:
    model = make()
    given = vectors(model, 10)
    states, one = plain(make(), given), replica(model)
    for vector in given[:own]:
        one.take(vector)
        one.advance()
    assert one.reach(carried(states, given, since, version)).digest() == states[version].digest()
    assert one.version == version


def test_what_is_at_hand_is_not_fetched(make: Callable[[], TemporalModel]) -> None:
    def never() -> np.ndarray:
        raise AssertionError("it was fetched")

    model = make()
    given = vectors(model, 3)
    states, one = plain(make(), given), replica(model)
    for vector in given[:2]:
        one.take(vector)
        one.advance()
    one.reach(Carried(10, 3, states[3].digest(), 1, never, (never, Held(given[2]))))
    one.reach(Carried(10, 2, states[2].digest(), 1, never, (never,)))


def test_a_state_that_differs_is_an_error_and_forgotten(make: Callable[[], TemporalModel]) -> None:
    model = make()
    given = vectors(model, 4)
    states, one = plain(make(), given), replica(model)
    # The first batch reads empty memory, which no parameters change.
    for vector in (given[0], given[3]):
        one.take(vector)
        one.advance()
    with pytest.raises(StateError, match="state of memory of number 2 on this host differs"):
        one.reach(carried(states, given, 0, 2))
    assert one.reach(carried(states, given, 0, 3)).digest() == states[3].digest()


def test_a_snapshot_of_another_length_is_an_error(make: Callable[[], TemporalModel]) -> None:
    one = replica(make())
    with pytest.raises(StateError, match="a state of 14 nodes has"):
        one.reach(Carried(10, 3, b"", 3, Held(np.zeros(7, np.uint8)), ()))


def test_a_job_that_is_over_has_no_vectors_any_more(make: Callable[[], TemporalModel]) -> None:
    with pytest.raises(ValueError, match="the job is over"):
        replica(make()).reach(Carried(10, 3, b"", 3, lambda: None, ()))


def test_an_epoch_begins_with_empty_memory_and_the_last_state_is_kept(make: Callable[[], TemporalModel]) -> None:
    model = make()
    given = vectors(model, 11)
    states, one = plain(make(), given), replica(model)
    for vector in given:
        one.take(vector)
        one.advance()
    begun = one.at(12)
    assert begun is not None
    assert begun.digest() == states[0].digest()
    one.advance()
    ended = one.at(11)
    assert ended is not None
    assert ended.digest() == states[11].digest()
    assert one.version == 13, "it stays where it is"


@pytest.mark.parametrize(("events", "batch"), [(10, 4), (8, 4), (3, 7), (1, 1)])
def test_numbers_of_states(events: int, batch: int) -> None:
    epochs = Epochs(events, batch)
    for step in range(3 * epochs.batches):
        assert epochs.step_from(epochs.before(step)) == step
        assert epochs.after(step + 1) == epochs.before(step) + 1
        assert epochs.is_empty(epochs.before(step)) == (epochs.slice_of(step).start == 0)
    sizes = [epochs.slice_of(step).stop - epochs.slice_of(step).start for step in range(epochs.batches)]
    assert sum(sizes) == events
    with pytest.raises(ValueError, match="epoch's end"):
        epochs.step_from(epochs.after(epochs.batches))
