"""Temporal learners: whatever the mode, scheme, pool and stragglers, parameters and memory are those of one process."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

import distseq
from distseq.cluster.trace import Trace
from distseq.engine.interfaces import Observer
from distseq.engine.journal import read_journal
from distseq.learners.learner import Learner
from distseq.models.data.events import EventData
from distseq.models.data.events.dataset import Events
from distseq.models.data.events.split import Split
from distseq.models.temporal import Draws, Graph, State, TemporalModel, advance, part_loss, prepare
from tests.models.temporal.streams import model_of, stream_of

EVENTS, TRAINED, BATCH = 260, 200, 48  # five batches in an epoch, of which the last one has 8 events
STEPS = 8
MODES: list[dict[str, Any]] = [
    {"mode": "parallel"},
    {"mode": "pres"},
    {"mode": "replay", "micro": 10},
    {"mode": "exact"},
]
SCHEMES = ["uncoded", "gc:1", "gc:1,code=cyclic", "srsgc:1,2,3", "msgc:1,2,2", "auto"]


def events() -> EventData:
    return EventData(stream_of(events=EVENTS), Split(TRAINED, 230, EVENTS))


def learner(name: str = "tgn", steps: int = STEPS, seed: int = 0, **options: Any) -> Learner:
    model = model_of(options.pop("preset", "tgn"), seed, **options)
    optimizer = torch.optim.SGD(model.parameters(), 0.5, momentum=0.9)
    return Learner(name, model, optimizer, data=events(), batch=BATCH, steps=steps, seed=3)


def alone(one: Learner, steps: int = STEPS) -> tuple[list[np.ndarray], State]:
    """The parameters and the memory of a plain loop, which trains the learner's own model."""
    model, data = one.model, one.data
    assert isinstance(model, TemporalModel)
    assert isinstance(data, Events)
    graph = Graph(data.stream, TRAINED)
    state = model.state(graph)
    for step in range(steps):
        epoch, start = step // 5, step % 5 * BATCH
        batch = slice(start, min(start + BATCH, TRAINED))
        if not start:
            state = model.state(graph)
        prepared = prepare(model, graph, state, batch, Draws(one.seed, epoch))
        one.optimizer.zero_grad()
        part_loss(model, prepared, np.arange(batch.start, batch.stop)).backward()
        state = advance(model, graph, state, batch, prepared)
        one.optimizer.step()
    return numbers(one), state


def numbers(one: Learner) -> list[np.ndarray]:
    return [p.detach().numpy().copy() for p in one.model.parameters()]


def trained(learners: Sequence[Learner], folder: Path, **options: Any) -> Path:
    given = {"pool": "simulated", "workers": 6, "checks": 2, "out": folder, "console": Console(quiet=True)}
    return distseq.train(learners, **{**given, **options}).folder


def assert_close(found: list[np.ndarray], expected: list[np.ndarray], tolerance: float) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


def memory_of(one: Learner) -> State:
    assert one.memory is not None
    saved = one.memory.snapshot()
    done = saved.pop("done")
    assert int(done) == one.steps
    assert isinstance(one.model, TemporalModel)
    return State.from_dict(saved, 14, one.model.options, torch.float64)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: str(mode["mode"]))
@pytest.mark.parametrize("scheme", SCHEMES)
def test_parameters_and_memory_are_those_of_one_process(mode: dict[str, Any], scheme: str, tmp_path: Path) -> None:
    options = {"scheduler": "auto"} if scheme == "auto" else {"scheme": scheme}
    # Two, since some schemes have a delay.
    learners = [learner("a", **mode), learner("b", seed=1, **mode)]
    trained(learners, tmp_path / "run", delays="bursts", **options)
    for one, other in zip(learners, (learner(**mode), learner(seed=1, **mode)), strict=True):
        parameters, state = alone(other)
        assert_close(numbers(one), parameters, 1e-11)
        for name, field in memory_of(one).fields.items():
            torch.testing.assert_close(field, state.fields[name], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("preset", ["jodie", "dyrep", "apan"])
def test_other_models_too(preset: str, tmp_path: Path) -> None:
    one, other = learner(preset=preset), learner(preset=preset)
    trained([one], tmp_path / "run", scheme="gc:1")
    assert_close(numbers(one), alone(other)[0], 1e-11)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: str(mode["mode"]))
@pytest.mark.parametrize("scheduling", [{"scheme": "gc:2"}, {"scheme": "msgc:1,2,2"}, {"parts": 6, "copies": 2}])
def test_bits_do_not_depend_on_stragglers(mode: dict[str, Any], scheduling: dict[str, Any], tmp_path: Path) -> None:
    if "parts" in scheduling:
        scheduling = {"scheduler": "pipeline", **scheduling}
    found = []
    for k, delays in enumerate(("bursts", "heavy-tail", "none")):
        learners = [learner("a", **mode), learner("b", seed=1, **mode)]
        trained(learners, tmp_path / str(k), delays=delays, **scheduling)
        found.append([(numbers(one), memory_of(one).digest()) for one in learners])
    for other in found[1:]:
        for (one, memory), (parameters, digest) in zip(found[0], other, strict=True):
            assert memory == digest
            assert all(np.array_equal(a, b) for a, b in zip(one, parameters, strict=True))


POOLS = ["local", pytest.param("ray", marks=pytest.mark.ray)]


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES[1:], ids=lambda mode: str(mode["mode"]))
@pytest.mark.parametrize("pool", POOLS)
def test_pools_have_the_same_bits(
    pool: str, mode: dict[str, Any], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if pool == "ray":
        request.getfixturevalue("ray_session")
    one, other = learner(**mode), learner(**mode)
    trained([one], tmp_path / "run", pool=pool, workers=4, hosts=2, scheme="gc:1")
    trained([other], tmp_path / "other", workers=4, scheme="gc:1", compute="rows")
    assert memory_of(one).digest() == memory_of(other).digest()
    assert all(np.array_equal(a, b) for a, b in zip(numbers(one), numbers(other), strict=True))
    assert_close(numbers(one), alone(learner(**mode))[0], 1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("pool", POOLS)
def test_a_killed_host_comes_back_to_the_state_of_the_others(
    pool: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if pool == "ray":
        request.getfixturevalue("ray_session")
    # The third message of worker 1 kills its host.
    times = np.full((40, 4), 0.01)
    times[2, 1] = np.inf
    Trace(times, 0.25, 0.0).save(tmp_path / "delays.npz")
    one, delays = learner(mode="exact"), str(tmp_path / "delays.npz")
    trained([one], tmp_path / "run", pool=pool, workers=4, hosts=2, scheme="gc:1", delays=delays)
    records = read_journal(tmp_path / "run" / "journal.jsonl")
    assert any("is replaced" in record["news"] for record in records if record["kind"] == "hosts")
    parameters, state = alone(learner(mode="exact"))
    assert_close(numbers(one), parameters, 1e-11)
    torch.testing.assert_close(memory_of(one).fields["memory"], state.fields["memory"], rtol=1e-11, atol=1e-11)


class Stopper(Observer):
    """Ends a run with an error after a step."""

    def __init__(self, step: int) -> None:
        self._step = step

    def job_applied(self, learner: str, step: int, metrics: Mapping[str, float], now: float) -> None:
        if step == self._step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: str(mode["mode"]))
@pytest.mark.parametrize("step", [1, 4, 6])
def test_a_resumed_run_has_the_same_bits(mode: dict[str, Any], step: int, tmp_path: Path) -> None:
    whole = learner(**mode)
    trained([whole], tmp_path / "whole", scheme="gc:1")
    with pytest.raises(distseq.Stopped):
        trained([learner(**mode)], tmp_path / "run", scheme="gc:1", watchers=[Stopper(step)])
    one = learner(**mode)
    distseq.train([one], resume=tmp_path / "run", console=Console(quiet=True))
    assert memory_of(one).digest() == memory_of(whole).digest()
    assert all(np.array_equal(a, b) for a, b in zip(numbers(one), numbers(whole), strict=True))


def test_accumulated_jobs_advance_memory_under_the_same_parameters(tmp_path: Path) -> None:
    model = model_of(mode="exact")
    one = Learner(
        "tgn", model, torch.optim.SGD(model.parameters(), 0.5), data=events(), batch=BATCH, steps=4, accumulate=2
    )
    trained([one], tmp_path / "run")
    other = model_of(mode="exact")
    graph, optimizer = Graph(events().stream, TRAINED), torch.optim.SGD(other.parameters(), 0.5)
    state = other.state(graph)
    for first in (0, 2 * BATCH):
        optimizer.zero_grad()
        for start in (first, first + BATCH):
            batch = slice(start, start + BATCH)
            prepared = prepare(other, graph, state, batch, Draws(0))
            (part_loss(other, prepared, np.arange(start, start + BATCH)) / 2).backward()
            state = advance(other, graph, state, batch, prepared)
        optimizer.step()
    assert_close(numbers(one), [p.detach().numpy() for p in other.parameters()], 1e-11)


class Spoiler(Observer):
    """Changes one number of the memory of the hosts' replica, which in a simulation is in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, steps: Sequence[int]) -> None:
        from distseq.gradients.work import GradientWork

        self.sent: list[tuple[int, str]] = []
        self._works: list[GradientWork] = []
        self._steps = steps
        made = GradientWork.__init__

        def noted(work: GradientWork, *args: Any, **options: Any) -> None:
            made(work, *args, **options)
            self._works.append(work)

        monkeypatch.setattr(GradientWork, "__init__", noted)

    def job_applied(self, learner: str, step: int, metrics: Mapping[str, float], now: float) -> None:
        if step in self._steps:
            memory = self._works[-1].problem(0).memory
            assert memory is not None
            state = memory.replica(BATCH).state
            rows = state.rows(np.array([3]))
            rows.pop("node")
            rows["memory"] = rows["memory"] + 1e-12
            from distseq.models.temporal.state import Changes

            state.apply(Changes(np.array([3]), np.array([0]), rows), state.position)

    def state_sent(self, learner: str, step: int, host: str) -> None:
        self.sent.append((step, learner))


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: str(mode["mode"]))
def test_a_state_that_differs_is_sent_and_its_rows_are_dropped(
    mode: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = learner(**mode)
    trained([whole], tmp_path / "whole", checks=0, scheme="gc:1")
    spoiler, one = Spoiler(monkeypatch, [1]), learner(**mode)
    trained([one], tmp_path / "run", checks=0, scheme="gc:1", watchers=[spoiler])
    assert [step for step, _ in spoiler.sent] == [2]
    records = read_journal(tmp_path / "run" / "journal.jsonl")
    assert [record["step"] for record in records if record["kind"] == "memory"] == [2]
    assert memory_of(one).digest() == memory_of(whole).digest()
    assert all(np.array_equal(a, b) for a, b in zip(numbers(one), numbers(whole), strict=True))


def test_after_three_differences_every_job_has_its_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoiler, one = Spoiler(monkeypatch, [0, 1, 2, 3, 5, 6]), learner(mode="exact")
    trained([one], tmp_path / "run", checks=0, scheme="gc:1", watchers=[spoiler])
    # The fifth batch is the last of its epoch; the sixth begins with empty memory.
    assert [step for step, _ in spoiler.sent] == [1, 2, 3]
    assert_close(numbers(one), alone(learner(mode="exact"))[0], 1e-11)


def test_mixed_with_learners_of_another_kind_under_lost_workers(tmp_path: Path) -> None:
    times = np.full((7, 5), 0.1)
    times[3, 2] = times[5, 0] = np.inf
    Trace(times, 0.2, 0.05).save(tmp_path / "delays.npz")
    line = torch.nn.Linear(2, 1).double()
    data = torch.utils.data.TensorDataset(torch.randn(64, 2).double(), torch.randn(64, 1).double())
    plain = Learner(
        "line",
        line,
        torch.optim.SGD(line.parameters(), 0.1),
        data=data,
        batch=10,
        steps=STEPS,
        loss=lambda model, batch: (model(batch[0]) - batch[1]).square().mean(1),
    )
    temporal = [learner(mode["mode"], **mode) for mode in MODES]
    trained([plain, *temporal], tmp_path / "run", workers=5, delays=str(tmp_path / "delays.npz"), scheme="gc:1")
    for mode, one in zip(MODES, temporal, strict=True):
        assert_close(numbers(one), alone(learner(**mode))[0], 1e-11)


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({"loss": lambda model, batch: batch}, "with its own loss: loss is given"),
        ({"sampler": lambda step: np.arange(BATCH)}, "in order of time, with its own loss: sampler is given"),
        ({"blocks": 4}, "blocks is given"),
        ({"data": Events(events(), "test")}, "is trained on the training part of its events: got part='test'"),
        ({"data": [1, 2, 3]}, "a temporal model learns from events, such as data='events:flights': got Samples"),
    ],
)
def test_what_does_not_go_with_a_temporal_model_is_refused(given: dict[str, Any], wrong: str) -> None:
    model = model_of()
    options = {"data": events(), "batch": BATCH, "steps": 1, **given}
    with pytest.raises(ValueError, match=wrong):
        Learner("tgn", model, torch.optim.SGD(model.parameters(), 0.1), **options)


def test_messages_of_another_width_are_refused() -> None:
    model = model_of(features=2)
    with pytest.raises(ValueError, match="learner tgn: TemporalModel: features=2, but the stream's messages have 3"):
        Learner("tgn", model, torch.optim.SGD(model.parameters(), 0.1), data=events(), batch=BATCH, steps=1)


def test_stale_gradients_advance_memory_under_the_parameters_of_their_jobs(tmp_path: Path) -> None:
    one = learner(mode="exact")
    trained([one], tmp_path / "run", checks=0, scheme="async:2", inexact=True)
    assert memory_of(one).position == 3 * BATCH
    assert all(np.isfinite(each).all() for each in numbers(one))


def test_a_gpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="learner tgn: temporal models compute on the CPU: set device to cpu"):
        trained([learner()], tmp_path / "run", pool="local", device="cuda")
    assert not (tmp_path / "run").exists()


def test_memory_that_does_not_fit_is_refused_with_the_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Of 14 nodes with two rows of 8 numbers, three times 8 bytes and a flag.
    size = 14 * (2 * 8 * 8 + 25)
    monkeypatch.setattr("distseq.gradients.memory.available_memory", lambda: 5 * size)
    one = learner()
    wrong = f"learner tgn: the memory of 14 nodes takes {size:,} bytes, and 6 replicas of it on this machine {6 * size:,}, but "
    with pytest.raises(ValueError, match=wrong):
        trained([one], tmp_path / "run", pool="local", workers=2, hosts=2)
    monkeypatch.setattr("distseq.gradients.memory.available_memory", lambda: size - 1)
    with pytest.raises(ValueError, match="and 1 replica of it on this machine"):
        learner()


@pytest.mark.slow
@pytest.mark.parametrize("pool", POOLS)
def test_hosts_that_were_left_out_catch_up(pool: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Whole jobs go to whoever is free: a host meets states far from the latest that it has."""
    if pool == "ray":
        request.getfixturevalue("ray_session")

    def make(seed: int) -> Learner:
        model = model_of(mode="exact", seed=seed)
        optimizer = torch.optim.SGD(model.parameters(), 0.05)
        return Learner(f"l{seed}", model, optimizer, data=events(), batch=7, steps=40, seed=3)

    learners = [make(0), make(1), make(2)]
    options = {"workers": 4, "scheduler": "pipeline", "parts": 1, "copies": 1, "delays": "heavy-tail:base=0.002"}
    trained(learners, tmp_path / "run", **options, **({"pool": pool, "hosts": 3} if pool != "simulated" else {}))
    for seed, one in enumerate(learners):
        other = make(seed)
        model, graph = other.model, Graph(events().stream, TRAINED)
        assert isinstance(model, TemporalModel)
        state = model.state(graph)
        for step in range(40):
            start = step % 29 * 7
            state = state if start else model.state(graph)
            batch = slice(start, min(start + 7, TRAINED))
            prepared = prepare(model, graph, state, batch, Draws(3, step // 29))
            other.optimizer.zero_grad()
            part_loss(model, prepared, np.arange(batch.start, batch.stop)).backward()
            state = advance(model, graph, state, batch, prepared)
            other.optimizer.step()
        assert_close(numbers(one), numbers(other), 1e-10)
        assert one.memory is not None
        assert one.memory.sent_again == 0
