"""The Work that trains: one weighted forward and backward over the samples of a row.

A row is the gradient of sum_n w_n loss_n, flat in the order of the model's parameters, then sum_n w_n loss_n and sum_n w_n.
The gradient is linear in the weights, so rows add up to the full batch's gradient.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from distseq.cluster.pool import Payload
from distseq.cluster.work import load_object
from distseq.models.data import Dataset, open_dataset

EXTRAS = 2  # loss sum, weight sum
DTYPES = {"float32": torch.float32, "float64": torch.float64}
Loss = Callable[[Any, Any], torch.Tensor]  # (model, batch) -> (B,)


@dataclass(frozen=True)
class Problem:
    """What one learner's rows are computed from, on every host alike."""

    model: nn.Module
    data: Dataset
    parameters: tuple[nn.Parameter, ...]
    loss: Loss | None = None  # in place of the model's own per_sample_loss


def build_model(target: str, args: Mapping[str, Any], seed: int, dtype: torch.dtype) -> nn.Module:
    """The model that `target` "module:name" builds from `args`, drawn from `seed`. ValueError if it breaks the contract."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = load_object(target)(**args)
        except (TypeError, RuntimeError) as error:
            raise ValueError(f"model {target!r} with {dict(args)}: {error}") from None
    if not isinstance(model, nn.Module):
        raise ValueError(f"model {target!r} must be a torch.nn.Module: got {type(model).__name__}")
    if not callable(getattr(model, "per_sample_loss", None)):
        raise ValueError(f"model {target!r} has no method per_sample_loss(batch) -> (B,)")
    return model.to(dtype)


def _opened(spec: str, args: Mapping[str, Any], fingerprint: str) -> Dataset:
    data = open_dataset(spec, **args)
    if data.fingerprint != fingerprint:
        raise ValueError(
            f"data {spec} differ on this host: sha256 {data.fingerprint[:12]}, the master has "
            f"{fingerprint[:12]}; install the same version of the data everywhere"
        )
    return data


def trained(model: nn.Module) -> tuple[nn.Parameter, ...]:
    """The parameters that rows are gradients of, in their order."""
    return tuple(p for p in model.parameters() if p.requires_grad)


def losses(problem: Problem, ids: np.ndarray) -> torch.Tensor:
    """(B,) losses of these samples under the model's parameters. ValueError when the model returns anything else."""
    batch, own = problem.data.batch(ids), problem.loss is None
    losses_B = problem.model.per_sample_loss(batch) if own else problem.loss(problem.model, batch)  # type: ignore[operator, misc]
    what = "per_sample_loss" if own else "loss"
    if not isinstance(losses_B, torch.Tensor):
        raise ValueError(f"{what} must return a tensor of ({len(ids)},) losses: got {type(losses_B).__name__}")
    if losses_B.shape != (len(ids),):
        raise ValueError(f"{what} must return ({len(ids)},) losses: got shape {tuple(losses_B.shape)}")
    return losses_B


class Task:
    """`learners`: one mapping each. `model` is an import string, built with model_args and seed, or a module, with its `loss`;
    `data` a spec, opened with data_args and compared with the expected fingerprint, or a Dataset."""

    def __init__(self, learners: Sequence[Mapping[str, Any]], dtype: str = "float32") -> None:
        self._specs, self._dtype = learners, DTYPES[dtype]
        self._problems: dict[int, Problem] = {}
        self._loaded: dict[int, tuple[int, int]] = {}  # learner -> (job, version) whose parameters its model holds

    def problem(self, learner: int) -> Problem:
        """Built on first use. ValueError when this host's data differ from the master's."""
        if learner not in self._problems:
            spec = self._specs[learner]
            data, model = spec["data"], spec["model"]
            if isinstance(data, str):
                data = _opened(data, spec["data_args"], spec["fingerprint"])
            if isinstance(model, str):
                model = build_model(model, spec["model_args"], spec["seed"], self._dtype)
            self._problems[learner] = Problem(model, data, trained(model), spec.get("loss"))
        return self._problems[learner]

    def row(self, payload: Payload, ids: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(P + 2,) in the task's dtype. ValueError when the model's losses are not (B,)."""
        problem = self.problem(payload.learner)
        if not len(ids):
            return np.zeros(
                sum(p.numel() for p in problem.parameters) + EXTRAS, dtype=str(self._dtype).rpartition(".")[2]
            )
        with _one_thread():
            self._load(problem, payload)
            losses_B = losses(problem, ids)
            weights_B = torch.from_numpy(weights).to(self._dtype)
            loss = losses_B @ weights_B
            gradients = torch.autograd.grad(loss, problem.parameters, allow_unused=True, materialize_grads=True)
            return torch.cat([*(g.flatten() for g in gradients), loss.detach()[None], weights_B.sum()[None]]).numpy()

    def _load(self, problem: Problem, payload: Payload) -> None:
        key = (payload.job, payload.version)
        if self._loaded.get(payload.learner) != key:
            load_vector(problem.parameters, payload.parameters)
            self._loaded[payload.learner] = key


def load_vector(parameters: Sequence[nn.Parameter], vector: np.ndarray) -> None:
    """Copy a flat vector into parameters, in their order. ValueError when the lengths differ."""
    sizes = [p.numel() for p in parameters]
    if sum(sizes) != len(vector):
        raise ValueError(f"the model has {sum(sizes)} parameters, the vector {len(vector)}")
    with torch.no_grad():
        for parameter, piece in zip(parameters, np.split(vector, np.cumsum(sizes)[:-1]), strict=True):
            parameter.copy_(torch.tensor(piece).view_as(parameter))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Rows are bit-identical on every host only with one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
