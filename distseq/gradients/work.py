"""GradientWork computes the rows of training, each by one weighted forward and backward pass.

A row is the gradient of sum_n w_n loss_n, flat in the order of the model's parameters; then, for each parameter, 1 if the loss
reaches it and 0 if not; then sum_n w_n loss_n and sum_n w_n c_n, where c_n is the count of a sample, 1 unless the loss returns
counts. It is linear in the weights w, so weighted rows add up to the full batch's gradient, and a parameter is reached by a batch
if the weighted sum of these ones is not 0.

A learner that draws random numbers has its batch cut into blocks (`Payload.blocks`), each computed under its own seed; a row of
any other learner that draws is refused with DrawsError. No row changes the state of a global random generator.
"""

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from distseq.cluster.errors import DrawsError
from distseq.cluster.pool import Payload
from distseq.cluster.system import generators
from distseq.cluster.work import RowRequest
from distseq.coding.layout import block_numbers
from distseq.gradients.backward import clear, flat_gradient, without_hooks
from distseq.gradients.blocks import block_by_block, blocks_of_row, in_one_pass
from distseq.gradients.data import Source, open_data
from distseq.gradients.device import choose_device, moved
from distseq.gradients.memory import checked_events, memory_of
from distseq.gradients.modes import evaluation_mode, without_graph
from distseq.gradients.passes import LARGEST, PassTrials
from distseq.gradients.problem import (
    DTYPES,
    Problem,
    build_model,
    check_counted,
    check_counts,
    load_vector,
    losses_and_counts,
    row_length,
    trained,
)
from distseq.gradients.randomness import block_seeds, undrawn
from distseq.gradients.stacked import stacked_gradients
from distseq.gradients.stream_evaluation import StreamEvaluation
from distseq.gradients.threads import one_thread
from distseq.models.data.held_out import held_out
from distseq.models.temporal import TemporalModel

# Samples per forward pass of an evaluation. An evaluation's part may be a whole data set: this bounds the memory of activations.
AT_ONCE = 256


class GradientWork:
    """A StackingWork for the rows and evaluations of several learners.

    learners: one mapping per learner. `model` is an import string, built with `model_args` and `seed`, or a module, then with its
        `loss`. `data` is a spec, opened with `data_args` and compared with `fingerprint`, or a Dataset. To be evaluated it also
        has `evaluation`, `evaluation_args` and `evaluation_fingerprint`.
    dtype: of parameters and rows, "float32" or "float64".
    device: what to compute on (distseq.config.schema.DEVICES). ValueError when this host has no such device.
    threads: of torch in this process, for good; given on hosts, which share their cores with each other.
    """

    def __init__(
        self,
        learners: Sequence[Mapping[str, Any]],
        dtype: str = "float32",
        device: str = "cpu",
        threads: int | None = None,
    ) -> None:
        if threads is not None:
            # Here, before the first operation of any thread of this process: each asks once.
            torch.set_num_threads(threads)
        self._specs, self._dtype, self._device = learners, DTYPES[dtype], choose_device(device)
        self._problems: dict[int, Problem] = {}
        self._evaluations: dict[int, Problem] = {}
        self._streamed: dict[int, StreamEvaluation] = {}
        self._loaded: dict[int, tuple[int, int]] = {}  # learner -> (job, version) whose parameters its model holds
        self._counted: dict[int, bool] = {}  # learner -> whether its loss returned counts with the latest row
        self._computed: set[int] = set()  # learners with memory whose rows were computed since the last idle time
        self._trials = PassTrials(self._alone, self._together)

    @one_thread()
    def problem(self, learner: int) -> Problem:
        """The learner's model and data, built on first use. DataError when its data are missing or differ from the master's."""
        # On first use, because a host of a large fleet may never be given a row of some learners.
        if learner not in self._problems:
            spec = self._specs[learner]
            data, model = spec["data"], spec["model"]
            # Data given by a spec are compared with the master's; data sent by value are the master's own.
            if isinstance(data, str):
                source = Source(data, open_data(data, spec["data_args"]), spec["fingerprint"])
            else:
                source = Source(type(data).__name__, data)
            if isinstance(model, str):
                model = build_model(model, spec["model_args"], spec["seed"], self._dtype)
            model = model.to(self._device)
            without_hooks(trained(model))
            memory = memory_of(model, source.dataset, partial(self._load_past, learner))
            if memory is not None and self._device.type != "cpu":
                raise ValueError("temporal models compute on the CPU: set device to cpu")
            self._problems[learner] = Problem(model, source, trained(model), spec.get("loss"), memory)
        return self._problems[learner]

    def _load_past(self, learner: int, vector: np.ndarray) -> None:
        """Puts parameters into a learner's model that are not those of the job whose rows it computes."""
        self._loaded.pop(learner, None)
        load_vector(self._problems[learner].parameters, vector)

    def idle(self) -> bool:
        """Advances the memory of one learner by the batch whose rows were computed last; whether one was."""
        while self._computed:
            learner = self._computed.pop()
            memory = self._problems[learner].memory
            if memory is not None and memory.idle():
                return True
        return False

    def evaluation(self, learner: int) -> Problem:
        """The learner's model with its evaluation data. ValueError when it has none; DataError as for `problem`."""
        if learner not in self._evaluations:
            problem, spec = self.problem(learner), self._specs[learner]
            given = spec["evaluation"]
            data = open_data(given, spec["evaluation_args"]) if isinstance(given, str) else given
            data = held_out(problem.data) if data is None else data
            if data is None:
                raise ValueError(f"learner {learner} has no data to be evaluated on")
            name = given if isinstance(given, str) else problem.source.name
            self._evaluations[learner] = replace(problem, source=Source(name, data, spec.get("evaluation_fingerprint")))
        return self._evaluations[learner]

    def _stream_evaluation(self, learner: int) -> StreamEvaluation:
        if learner not in self._streamed:
            problem = self.problem(learner)
            assert isinstance(problem.model, TemporalModel)
            events = checked_events(problem.model, problem.data)
            self._streamed[learner] = StreamEvaluation(problem.model, events, self.evaluation(learner).data)
        return self._streamed[learner]

    def counted(self, learner: int) -> bool:
        """Whether the learner's loss returned counts when its latest row was computed here."""
        return self._counted[learner]

    def read(self, payload: Payload, ids: np.ndarray, blocks: np.ndarray | None = None) -> Any:
        """The batch of a row; for an evaluation, a list of batches. DataError as from Source.batch.

        None for an empty part, and for samples that must be read when their row is computed, because reading them draws.
        """
        if payload.kind == "evaluation":
            problem = self.evaluation(payload.learner)
            if problem.memory is not None:
                return None
            read = partial(_batches, problem.source, ids)
        else:
            problem = self.problem(payload.learner)
            source = problem.source
            # The samples of a temporal model are its events, which its graph holds.
            if not len(ids) or (payload.blocks and not payload.joint) or problem.memory is not None:
                return None
            read = partial(source.batch, ids)
        # Another row may draw meanwhile, under seeds of its own.
        with generators.LOCK:
            try:
                return undrawn(read, self._device)
            except DrawsError:
                return None

    def row(
        self,
        payload: Payload,
        ids: np.ndarray,
        weights: np.ndarray,
        samples: Any = None,
        blocks: np.ndarray | None = None,
    ) -> np.ndarray:
        """The row (P + K + 2,) of samples `ids` (B,) with `weights` (B,); for an evaluation see `_evaluated`.

        P: numbers in the K trained parameters; samples: what `read` has returned, None = read now; blocks: (B,) the block of
        each sample, where the batch is cut into blocks, None = `ids` are the whole batch. ValueError when the model's losses are
        not (B,), a gradient is sparse, or the pass changes a parameter or buffer; DataError when a sample cannot be read or is
        not finite; DrawsError when random numbers are drawn without blocks.
        """
        if payload.kind == "evaluation":
            return self._evaluated(payload, ids, weights, samples, blocks)
        problem = self.problem(payload.learner)
        if not len(ids):
            return np.zeros(row_length(problem.parameters), dtype=str(self._dtype).rpartition(".")[2])
        if problem.memory is not None:
            samples = problem.memory.part(payload, ids)
            self._computed.add(payload.learner)
        self._load(problem, payload)

        def flat(begin: int, end: int, samples: Any = None) -> torch.Tensor:
            batch = problem.source.batch(ids[begin:end]) if samples is None else samples
            # Whatever another learner's model has left switched off in this process.
            with one_thread(), torch.enable_grad():
                return self._pass(problem, payload, ids[begin:end], weights[begin:end], batch)

        whole = partial(flat, 0, len(ids), samples)
        if not payload.blocks:
            return _numpy(undrawn(whole, self._device))
        own = blocks_of_row(_numbers(payload, ids, blocks), _seeds(payload))
        found = in_one_pass(whole, own, self._device) if payload.joint else None
        if found is None:
            found = block_by_block(flat, own, self._device)
            # There dropout of one pass has other masks than torch's fused one: rows of one job would not fit together.
            if payload.joint and self._device.type != "cpu":
                raise ValueError(
                    "these samples draw more than dropout of tensors with the batch first, which the trial did not see: set "
                    "device to cpu"
                )
        return _numpy(found)

    def joint_row(self, payload: Payload) -> np.ndarray | None:
        """The row of a job's whole batch in one pass; None if it draws anything but dropout over samples."""
        problem, ids = self.problem(payload.learner), payload.ids
        self._load(problem, payload)

        def whole() -> torch.Tensor:
            with one_thread(), torch.enable_grad():
                return self._pass(problem, payload, ids, np.ones(len(ids)), problem.source.batch(ids))

        found = in_one_pass(whole, blocks_of_row(_numbers(payload, ids, None), _seeds(payload)), self._device)
        return None if found is None else _numpy(found)

    def _pass(
        self, problem: Problem, payload: Payload, ids: np.ndarray, weights: np.ndarray, batch: Any
    ) -> torch.Tensor:
        """(P + K + 2,): the row of samples whose batch has been read."""
        marks = problem.watched.marks()
        # Before the loss, which may run a backward pass of its own and use its gradients.
        clear(problem)
        losses_B, counts_B = losses_and_counts(problem, ids, batch)
        self._counted[payload.learner] = counts_B is not None
        check_counted(counts_B is not None, payload.counts, problem.loss_name)
        weights_B = torch.from_numpy(weights).to(self._device, self._dtype)
        loss = losses_B @ weights_B
        gradient = flat_gradient(problem, loss)
        problem.watched.check(marks)
        count = weights_B.sum() if counts_B is None else counts_B @ weights_B
        flat = torch.cat([*gradient, loss.detach()[None], count[None]])
        # The sum is finite only if every number is, up to overflow, and costs one pass without a temporary array.
        if not np.isfinite(float(flat.sum())):
            problem.source.check_finite(ids, batch)
        return flat

    def shape(self, request: RowRequest) -> Hashable:
        """What rows must have in common to be computed in one pass: model, its arguments and the batch's shapes.

        None if the row must be computed alone: an evaluation, a model made in Python (only its code says what it computes), one
        that draws or has more than LARGEST parameters, or a batch that is not a dict of tensors.
        """
        spec, batch = self._specs[request.payload.learner], request.samples
        tensors = isinstance(batch, dict) and all(isinstance(each, torch.Tensor) for each in batch.values())
        small = request.payload.parameters.size <= LARGEST and not request.payload.blocks
        if request.payload.kind != "gradient" or not (isinstance(spec["model"], str) and tensors and small):
            return None
        sizes = tuple((name, each.shape, each.dtype) for name, each in batch.items())
        return spec["model"], json.dumps(spec["model_args"], sort_keys=True), sizes

    def rows(self, requests: Sequence[RowRequest]) -> list[np.ndarray]:
        """The rows of requests of one shape, in one pass where that gives the same bits in less time."""
        return self._trials.rows(self.shape(requests[0]), requests)

    def _alone(self, requests: Sequence[RowRequest]) -> list[np.ndarray]:
        return [self.row(*each) for each in requests]

    def _together(self, requests: Sequence[RowRequest]) -> list[np.ndarray]:
        models = [self.problem(each.payload.learner).model for each in requests]
        batches = [moved(each.samples, self._device) for each in requests]
        vectors_MP = self._tensor([each.payload.parameters for each in requests])
        weights_MB = self._tensor([each.weights for each in requests])
        with one_thread(), torch.enable_grad():
            stack = partial(stacked_gradients, models, vectors_MP, batches, weights_MB)
            rows_M, counts_MB = undrawn(stack, self._device)
            for m, each in enumerate(requests):
                check_counted(counts_MB is not None, each.payload.counts, "per_sample_loss")
                if counts_MB is not None:
                    check_counts(counts_MB[m], each.ids, "per_sample_loss")
            # Counts are summed apart from vmap, one model at a time, as in a row computed alone.
            counts = [
                weights_B.sum() if counts_MB is None else counts_MB[m] @ weights_B
                for m, weights_B in enumerate(weights_MB)
            ]
            rows = torch.cat([rows_M, torch.stack(counts)[:, None]], 1)
        return list(rows.cpu().numpy())

    def _tensor(self, vectors: Sequence[np.ndarray]) -> torch.Tensor:
        return torch.from_numpy(np.stack(vectors)).to(self._device, self._dtype)

    def _evaluated(
        self, payload: Payload, ids: np.ndarray, weights: np.ndarray, samples: Any, blocks: np.ndarray | None
    ) -> np.ndarray:
        """(2,) float64: the weighted sums of losses and of counts over evaluation samples; of a temporal model all scores."""
        problem = self.evaluation(payload.learner)
        # Before evaluation mode, which may work on a copy of the model.
        self._load(problem, payload)
        if problem.memory is not None:
            with one_thread():
                return problem.memory.evaluated(self._stream_evaluation(payload.learner), payload, ids, weights)
        with one_thread(), evaluation_mode(problem.model) as model:
            sums = partial(_sums, replace(problem, model=model), payload, ids, weights)
            try:
                return _numpy(undrawn(partial(sums, 0, len(ids), samples), self._device))
            except DrawsError:
                # A learner that draws when it is trained may do so when it is evaluated too: each block under its seed.
                if not payload.blocks:
                    raise
            own = blocks_of_row(_numbers(payload, ids, blocks), _seeds(payload))
            return _numpy(block_by_block(sums, own, self._device))

    def _load(self, problem: Problem, payload: Payload) -> None:
        key = (payload.job, payload.version)
        # Rows of one job on this host share its parameters: copying them once is enough.
        if self._loaded.get(payload.learner) != key:
            load_vector(problem.parameters, payload.parameters)
            self._loaded[payload.learner] = key


def _sums(
    problem: Problem, payload: Payload, ids: np.ndarray, weights: np.ndarray, begin: int, end: int, batches: Any = None
) -> torch.Tensor:
    """(2,) float64: the weighted sums of losses and counts of samples begin .. end - 1, whose batches may have been read."""
    found = torch.zeros(2, dtype=torch.float64)
    for k, batch in enumerate(_batches(problem.source, ids[begin:end]) if batches is None else batches):
        own = slice(begin + k * AT_ONCE, min(end, begin + (k + 1) * AT_ONCE))
        losses_B, counts_B = without_graph(partial(losses_and_counts, problem, ids[own], batch))
        check_counted(counts_B is not None, payload.counts, problem.loss_name)
        weights_B = torch.from_numpy(weights[own])
        # In float64, because a part may be a whole data set, whose float32 sum would lose digits.
        found[0] += losses_B.detach().double().cpu() @ weights_B
        found[1] += weights_B.sum() if counts_B is None else counts_B.double().cpu() @ weights_B
    return found


def _batches(source: Source, ids: np.ndarray) -> list[Any]:
    return [source.batch(ids[begin : begin + AT_ONCE]) for begin in range(0, len(ids), AT_ONCE)]


def _numpy(found: torch.Tensor) -> np.ndarray:
    row: np.ndarray = found.cpu().numpy()
    return row


def _seeds(payload: Payload) -> list[int]:
    return block_seeds(payload.seed, payload.step, payload.blocks)


def _numbers(payload: Payload, ids: np.ndarray, blocks: np.ndarray | None) -> np.ndarray:
    """(B,) the block of each sample of a row."""
    if blocks is None and len(ids) != len(payload.ids):
        raise ValueError(f"{len(ids)} of {len(payload.ids)} samples need the numbers of their blocks")
    return block_numbers(len(ids), payload.blocks) if blocks is None else blocks
