"""GradientWork computes the rows of training, each by one weighted forward and backward pass.

A row is the gradient of sum_n w_n loss_n, flat in the order of the model's parameters, then sum_n w_n loss_n and sum_n w_n.
It is linear in the weights w, so weighted rows add up to the full batch's gradient.
"""

import json
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from distseq.cluster.pool import Payload
from distseq.cluster.work import RowRequest
from distseq.gradients.data import Source, open_data
from distseq.gradients.device import choose_device, moved
from distseq.gradients.passes import LARGEST, PassTrials
from distseq.gradients.problem import DTYPES, EXTRAS, Problem, build_model, load_vector, losses, trained
from distseq.gradients.stacked import stacked_gradients
from distseq.models.data.held_out import held_out

# Samples per forward pass of an evaluation. An evaluation's part may be a whole data set: this bounds the memory of activations.
AT_ONCE = 256


class GradientWork:
    """A StackingWork for the rows and evaluations of several learners.

    learners: one mapping per learner. `model` is an import string, built with `model_args` and `seed`, or a module, then with its
        `loss`. `data` is a spec, opened with `data_args` and compared with `fingerprint`, or a Dataset. To be evaluated it also
        has `evaluation`, `evaluation_args` and `evaluation_fingerprint`.
    dtype: of parameters and rows, "float32" or "float64".
    device: what to compute on (distseq.config.schema.DEVICES). ValueError when this host has no such device.
    """

    def __init__(self, learners: Sequence[Mapping[str, Any]], dtype: str = "float32", device: str = "cpu") -> None:
        self._specs, self._dtype, self._device = learners, DTYPES[dtype], choose_device(device)
        self._problems: dict[int, Problem] = {}
        self._evaluations: dict[int, Problem] = {}
        self._loaded: dict[int, tuple[int, int]] = {}  # learner -> (job, version) whose parameters its model holds
        self._trials = PassTrials(self._alone, self._together)

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
            self._problems[learner] = Problem(model, source, trained(model), spec.get("loss"))
        return self._problems[learner]

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

    def read(self, payload: Payload, ids: np.ndarray) -> Any:
        """The batch of a row, None for an empty part; for an evaluation, a list of batches. DataError as from Source.batch."""
        if payload.kind == "evaluation":
            source = self.evaluation(payload.learner).source
            return [source.batch(ids[begin : begin + AT_ONCE]) for begin in range(0, len(ids), AT_ONCE)]
        source = self.problem(payload.learner).source
        return source.batch(ids) if len(ids) else None

    def row(self, payload: Payload, ids: np.ndarray, weights: np.ndarray, samples: Any = None) -> np.ndarray:
        """The row (P + 2,) of samples `ids` (B,) with `weights` (B,); for an evaluation (2,), see `_evaluated`.

        samples: what `read` has returned; None = read now. ValueError when the model's losses are not (B,); DataError when a
        sample cannot be read or is not finite.
        """
        if payload.kind == "evaluation":
            return self._evaluated(payload, ids, weights, self.read(payload, ids) if samples is None else samples)
        problem = self.problem(payload.learner)
        if not len(ids):
            return np.zeros(
                sum(p.numel() for p in problem.parameters) + EXTRAS, dtype=str(self._dtype).rpartition(".")[2]
            )
        batch = self.read(payload, ids) if samples is None else samples
        with _one_thread():
            self._load(problem, payload)
            losses_B = losses(problem, ids, batch)
            weights_B = torch.from_numpy(weights).to(self._device, self._dtype)
            loss = losses_B @ weights_B
            # A parameter that these samples do not reach has a gradient of zeros: a row has the same layout everywhere.
            gradients = torch.autograd.grad(loss, problem.parameters, allow_unused=True, materialize_grads=True)
            flat = torch.cat([*(g.flatten() for g in gradients), loss.detach()[None], weights_B.sum()[None]])
            row: np.ndarray = flat.cpu().numpy()
        # The sum is finite only if every number is, up to overflow, and costs one pass without a temporary array.
        if not np.isfinite(row.sum()):
            problem.source.check_finite(ids, batch)
        return row

    def shape(self, request: RowRequest) -> Hashable:
        """What rows must have in common to be computed in one pass: model, its arguments and the batch's shapes.

        None if the row must be computed alone: an evaluation, a model made in Python (only its code says what it computes), one
        with more than LARGEST parameters, or a batch that is not a dict of tensors.
        """
        spec, batch = self._specs[request.payload.learner], request.samples
        tensors = isinstance(batch, dict) and all(isinstance(each, torch.Tensor) for each in batch.values())
        small = request.payload.parameters.size <= LARGEST
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
        with _one_thread():
            sums_M1 = torch.stack([weights_B.sum() for weights_B in weights_MB])[:, None]
            # Weights are summed apart from vmap, one model at a time, as in a row computed alone.
            rows = torch.cat([stacked_gradients(models, vectors_MP, batches, weights_MB), sums_M1], 1)
        return list(rows.cpu().numpy())

    def _tensor(self, vectors: Sequence[np.ndarray]) -> torch.Tensor:
        return torch.from_numpy(np.stack(vectors)).to(self._device, self._dtype)

    def _evaluated(self, payload: Payload, ids: np.ndarray, weights: np.ndarray, batches: list[Any]) -> np.ndarray:
        """(2,) float64: the weighted sum of losses over evaluation samples, and the sum of the weights."""
        problem, total = self.evaluation(payload.learner), 0.0
        with _one_thread(), torch.no_grad():
            self._load(problem, payload)
            for batch, begin in zip(batches, range(0, len(ids), AT_ONCE), strict=True):
                # In float64, because a part may be a whole data set, whose float32 sum would lose digits.
                losses_B = losses(problem, ids[begin : begin + AT_ONCE], batch).double().cpu()
                total += float(losses_B @ torch.from_numpy(weights[begin : begin + AT_ONCE]))
        return np.array([total, weights.sum()])

    def _load(self, problem: Problem, payload: Payload) -> None:
        key = (payload.job, payload.version)
        # Rows of one job on this host share its parameters: copying them once is enough.
        if self._loaded.get(payload.learner) != key:
            load_vector(problem.parameters, payload.parameters)
            self._loaded[payload.learner] = key


@contextmanager
def _one_thread() -> Iterator[None]:
    """Runs torch on one thread: the number of threads changes the order of summation, and with it the bits of a row."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
