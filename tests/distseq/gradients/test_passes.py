"""Rows computed in one pass have the very bits of rows computed alone, or are computed alone."""

import json
import queue
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from distseq.cluster.errors import DrawsError
from distseq.cluster.hosts.messages import Assign, Publish, Stop
from distseq.cluster.hosts.worker import WorkerLoop
from distseq.cluster.pool import Payload
from distseq.cluster.work import RowRequest, StackingWork, WorkSpec
from distseq.coding.plan import MiniTask
from distseq.config.toml_file import from_dict
from distseq.gradients.data import DataError
from distseq.gradients.work import GradientWork
from distseq.learners.from_config import build_fleet
from distseq.models.data.dataset import Dataset
from distseq.models.data.synthetic import group_words

SYMBOLS, WIDTH, BATCH, WINDOW = 8, 16, 4, 16


class Table(nn.Module):
    """With a frozen parameter, a buffer and a number without a dimension, all drawn with the model. It has no product or long
    sum, whose bits could hang on the library: it stacks on every machine."""

    def __init__(self) -> None:
        super().__init__()
        self.gain_V = nn.Parameter(torch.rand(SYMBOLS))
        self.power = nn.Parameter(torch.rand(()))
        self.shift_V = nn.Parameter(torch.randn(SYMBOLS), requires_grad=False)
        self.register_buffer("scale_V", torch.rand(SYMBOLS))

    def per_sample_loss(self, batch: dict[str, Tensor]) -> Tensor:
        seen_BV = one_hot(batch["inputs"][:, 0], SYMBOLS) * self.gain_V + self.shift_V
        y_BV = self.power * seen_BV * self.scale_V - batch["targets"][:, :1]
        return y_BV[:, 0] * y_BV[:, 1]


class Secret(Table):
    """What it draws is in no parameter and no buffer: another learner's module computes something else."""

    def __init__(self) -> None:
        super().__init__()
        self.secret = float(torch.rand(()))

    def per_sample_loss(self, batch: dict[str, Tensor]) -> Tensor:
        return super().per_sample_loss(batch) * self.secret


class Looking(Table):
    """Its code depends on values."""

    def per_sample_loss(self, batch: dict[str, Tensor]) -> Tensor:
        losses_B = super().per_sample_loss(batch)
        return losses_B if float(losses_B.detach().sum()) > 0 else -losses_B


class Drawing(Table):
    def per_sample_loss(self, batch: dict[str, Tensor]) -> Tensor:
        return super().per_sample_loss(batch) * torch.rand(())


class Closed(Table):
    """Stacked it computes something else, which shows only where its gate is not zero."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(()))

    def per_sample_loss(self, batch: dict[str, Tensor]) -> Tensor:
        return super().per_sample_loss(batch) + self.gate**2 * torch._C._functorch.is_batchedtensor(self.gate)


class Bad(Table):
    def per_sample_loss(self, batch: dict[str, Tensor]) -> Tensor:
        return super().per_sample_loss(batch).sum()


def words() -> Dataset:
    return group_words(3, WINDOW)


class Spied(GradientWork):
    """How many rows were computed in passes."""

    made: ClassVar[list["Spied"]] = []

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.passes: tuple[int, ...] = ()
        self.computed = 0  # rows, alone or in passes
        self.made.append(self)

    def row(self, *args: Any, **options: Any) -> np.ndarray:
        self.computed += 1
        return super().row(*args, **options)

    def _together(self, asked: Any) -> list[np.ndarray]:
        self.passes += (len(asked),)
        self.computed += len(asked)
        return super()._together(asked)


@pytest.fixture(autouse=True)
def whatever_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bits decide alone: how long rows of a few numbers take says nothing."""
    monkeypatch.setattr("distseq.gradients.passes.FASTER", float("inf"))


def task(model: str, dtype: str = "float32", learners: int = 4, **args: Any) -> Spied:
    model = model if ":" in model else f"{__name__}:{model}"
    specs = [{"data": group_words(3, 4), "model": model, "model_args": args, "seed": seed} for seed in range(learners)]
    return Spied(specs, dtype)


def sequence(layers: str, width: int = WIDTH, **options: Any) -> Spied:
    return task("distseq.models.sequence:SequenceModel", symbols=SYMBOLS, width=width, layers=layers, **options)


def asked(work: GradientWork, learner: int, job: int = 7, batch: int = BATCH, window: int = WINDOW) -> RowRequest:
    draws = np.random.default_rng([learner, job])
    parameters = [p.detach().numpy().ravel() for p in work.problem(learner).parameters]
    vector = np.concatenate(parameters) + (0.01 * draws.normal() if job != 7 else 0)
    payload = Payload(job, learner, 0, vector.astype(parameters[0].dtype), np.arange(batch), 0, "gc:1", 4, version=1)
    symbols = torch.from_numpy(draws.integers(SYMBOLS, size=(2, batch, window)))
    return RowRequest(payload, payload.ids, draws.normal(size=batch), {"inputs": symbols[0], "targets": symbols[1]})


def alone(model: Callable[[], GradientWork], rows: list[RowRequest]) -> list[bytes]:
    """By a Task that has never stacked."""
    work = model()
    return [work.row(*each).tobytes() for each in rows]


@pytest.mark.parametrize(
    "layers", ["gru", "lstm:heads=2", "slstm", "ssm", "s5", "mamba", "linear_attention", "delta*2"]
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_have_the_bits_of_rows_alone(layers: str, dtype: str) -> None:
    def make() -> Spied:
        described = {"symbols": SYMBOLS, "width": WIDTH, "layers": layers, "residual": True}
        return task("distseq.models.sequence:SequenceModel", dtype, **described)

    work = make()
    for job in (7, 8, 9):
        rows = [asked(work, learner, job) for learner in range(4)]
        assert [row.tobytes() for row in work.rows(rows)] == alone(make, rows)
    assert work.passes[:1] == (4,)


def test_what_has_equal_bits_is_computed_in_one_pass_with_each_learners_own_buffers() -> None:
    work = task("Table")
    for job in range(7, 12):
        rows = [asked(work, learner, job) for learner in range(4)]
        assert [row.tobytes() for row in work.rows(rows)] == alone(lambda: task("Table"), rows)
    assert work.passes == (4,) * 4  # two of the trial, which takes three jobs, and one for each job after it


@pytest.mark.parametrize("name", ["Secret", "Looking", "Drawing", "Closed"])
def test_what_stacked_is_something_else_is_computed_alone(name: str) -> None:
    work = task(name)
    for job in (7, 8, 9):
        rows = [asked(work, learner, job) for learner in range(4)]
        if name == "Drawing":
            with pytest.raises(DrawsError):
                work.rows(rows)
        else:
            assert [row.tobytes() for row in work.rows(rows)] == alone(lambda: task(name), rows)
    assert len(work.passes) <= 2


def test_what_is_not_faster_in_one_pass_is_computed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distseq.gradients.passes.FASTER", 0.0)
    work = task("Table")
    for _ in range(3):
        work.rows([asked(work, learner) for learner in range(4)])
    assert work.passes == (4, 4)


def test_a_trial_adds_at_most_one_pass_to_a_call_and_its_rows_are_the_answers() -> None:
    work = task("Table")
    for job in range(7, 13):
        rows = [asked(work, learner, job) for learner in range(4)]
        before = work.computed
        assert [row.tobytes() for row in work.rows(rows)] == alone(lambda: task("Table"), rows)
        assert work.computed - before <= 2 * len(rows)
    before = work.computed
    work.rows(rows)
    assert work.computed - before == len(rows)


def test_rows_that_take_long_are_never_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distseq.gradients.passes.LONG", 0.0)
    work = task("Table")
    for _ in range(4):
        work.rows([asked(work, learner) for learner in range(4)])
    assert (work.passes, work.computed) == ((), 16)


def test_passes_are_powers_of_two() -> None:
    work = task("Table", learners=7)
    rows = [asked(work, learner) for learner in range(7)]
    for _ in range(4):
        assert [row.tobytes() for row in work.rows(rows)] == alone(lambda: task("Table", learners=7), rows)
    assert work.passes == (4, 2) * 3


def test_the_fused_lstm_is_never_stacked() -> None:
    work = sequence("lstm")
    rows = [asked(work, learner) for learner in range(4)]
    for _ in range(2):
        assert [row.tobytes() for row in work.rows(rows)] == alone(lambda: sequence("lstm"), rows)
    assert work.passes == (4,)


def test_a_learner_that_was_never_seen_is_tried_first() -> None:
    work = task("Secret")
    work._specs[1]["seed"] = 0  # built as learner 0 is
    pair, other = [asked(work, 0), asked(work, 1)], [asked(work, 0), asked(work, 2)]
    for _ in range(4):
        work.rows(pair)
    assert work.passes == (2,) * 3
    assert [row.tobytes() for row in work.rows(other)] == [work.row(*each).tobytes() for each in other]


def test_two_parts_of_one_job_may_share_a_pass() -> None:
    work = task("Table")
    one = asked(work, 0)
    rows = [one, asked(work, 1), one._replace(weights=np.ones(BATCH)), one._replace(weights=np.zeros(BATCH))]
    for _ in range(4):
        assert [row.tobytes() for row in work.rows(rows)] == alone(lambda: task("Table"), rows)
    assert work.passes == (4,) * 3


def test_a_sample_that_makes_a_row_infinite_is_named() -> None:
    work = task("Table")
    rows = [asked(work, learner) for learner in range(2)]
    for each in rows:
        each.samples["targets"] = each.samples["targets"].float()
    for _ in range(4):
        work.rows(rows)
    rows[1].samples["targets"][2] = np.inf
    with pytest.raises(DataError, match="sample 2"):
        work.rows(rows)
    assert work.passes == (2,) * 4


def test_an_error_of_the_model_is_the_error_of_its_row() -> None:
    with pytest.raises(ValueError, match=r"must return \(4,\) losses: got shape \(\)"):
        task("Bad").rows([asked(task("Bad"), learner) for learner in range(2)])


def test_what_shares_a_shape() -> None:
    work = sequence("gru")
    assert isinstance(work, StackingWork)
    shape = work.shape(asked(work, 0))
    assert shape is not None
    assert shape == work.shape(asked(work, 1, job=8))
    assert shape != work.shape(asked(work, 1, batch=BATCH - 1))
    assert shape != work.shape(asked(work, 1, window=WINDOW + 1))
    other = sequence("gru", width=2 * WIDTH)
    assert shape != other.shape(asked(other, 1))
    assert work.shape(asked(work, 0)._replace(samples=[torch.zeros(3)])) is None
    assert work.shape(asked(work, 0)._replace(samples=None)) is None
    one = asked(work, 0)
    large = replace(one.payload, parameters=np.zeros(2**20 + 1, np.float32))
    assert work.shape(one._replace(payload=large)) is None
    assert work.shape(one._replace(payload=replace(one.payload, kind="evaluation"))) is None
    live = GradientWork([{"data": group_words(3, 4), "model": Table()}])
    assert live.shape(asked(live, 0)) is None


def test_a_worker_computes_the_mini_tasks_of_four_learners_in_one_pass() -> None:
    """Through the worker loop, from what a config file describes."""
    data = {"data": f"{__name__}:words", "data_args": {}, "fingerprint": None}
    learners = [{**data, "model": f"{__name__}:Table", "model_args": {}, "seed": m} for m in range(4)]
    spec = WorkSpec(f"{__name__}:Spied", json.dumps({"learners": learners}), stack=8)
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    loop, work = WorkerLoop(spec, answers.put), Spied(learners)
    payloads = [asked(work, learner, job=learner).payload for learner in range(4)]
    for job, payload in enumerate(payloads):
        loop.post(Publish(job, partial(replace, payload, version=job + 1)))
    for invocation, jobs in enumerate([(0, 1), (2, 3)]):
        loop.post(Assign(1, tuple(MiniTask(job, 0, 1) for job in jobs), 1, invocation, 0.0))
    thread = threading.Thread(target=loop.run)
    thread.start()
    found = [answers.get(timeout=30) for _ in range(4)]
    loop.post(Stop())
    thread.join(timeout=30)
    for job, answer in enumerate(found):
        assert (answer.task.job, answer.version, answer.fault) == (job, job + 1, None)
        ids, weights = payloads[job].layout.row(answer.task, payloads[job].ids)
        assert answer.row.tobytes() == work.row(payloads[job], ids, weights).tobytes()
    assert Spied.made[-1].passes == (4,)


def test_the_configuration_says_how_many() -> None:
    learner = {
        "name": "a",
        "model": f"{__name__}:Table",
        "data": "distseq.models.data.synthetic:group_words",
        "batch": 4,
    }
    described: dict[str, Any] = {"learner": [{**learner, "data_args": {"points": 3, "length": 4}}]}
    assert build_fleet(from_dict(described)).spec.stack == 8
    described["pool"] = {"stack": 1}
    assert build_fleet(from_dict(described)).spec.stack == 1
    described["pool"] = {"stack": 0}
    with pytest.raises(ValueError, match=r"stack in \[pool\] must be at least 1: got 0"):
        from_dict(described)
