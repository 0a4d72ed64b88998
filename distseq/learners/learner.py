"""One model being trained: opens jobs, takes decoded gradients, and does everything that is not linear, once, after decoding."""

from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from distseq.cluster.errors import FaultError
from distseq.cluster.work import fault_of
from distseq.engine.interfaces import JobInput
from distseq.gradients.problem import EXTRAS, Loss, trained
from distseq.learners.optimizers import Optimizer, Schedule
from distseq.learners.snapshot import Snapshot, check_compatible, described
from distseq.models.data.held_out import held_out
from distseq.models.data.torch_data import as_dataset

Sampler = Callable[[int], Any]


class Learner:
    """A model to train: `distseq.train([Learner(...), ...])`.

    name: of its weights' file: letters, digits, '.', '_' and '-'.
    model, optimizer: a torch module on the CPU, and an optimizer of torch over its parameters, in groups or not.
    data: a map-style torch data set (`collate` as a DataLoader's `collate_fn`), a `distseq.models.data.Dataset`, or the spec
        of one, opened with `data_args`.
    evaluation: data to evaluate on, like `data`; by default the held-out part of a text, and nothing for other data.
    batch, steps: samples of a job, and jobs in all.
    loss: (model, batch) -> (B,) losses, one a sample; by default the model's own `per_sample_loss(batch)`.
    sampler: step -> (batch,) sample ids, a function of the step alone; by default drawn with replacement from (seed, step).
    clip: bounds the norm of the mean gradient, as `torch.nn.utils.clip_grad_norm_` does.
    schedule: a torch learning-rate schedule of the optimizer, stepped after each optimizer step, on the batch's loss where it
        is ReduceLROnPlateau.
    accumulate: the optimizer steps once in so many jobs, on the mean over their batches.
    ema: decay of an exponential moving average of the weights, which is the module `averaged`.

    Training changes model, optimizer and schedule in place. ValueError, in one line, for what makes no sense.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        data: Any,
        batch: int,
        steps: int,
        loss: Loss | None = None,
        data_args: Mapping[str, Any] | None = None,
        evaluation: Any = None,
        evaluation_args: Mapping[str, Any] | None = None,
        collate: Callable[[list[Any]], Any] | None = None,
        sampler: Sampler | None = None,
        seed: int = 0,
        clip: float | None = None,
        schedule: Schedule | None = None,
        accumulate: int = 1,
        ema: float | None = None,
    ) -> None:
        self.name, self.model, self.optimizer, self.schedule = name, model, optimizer, schedule
        self.loss, self.sampler, self.batch, self.seed, self.clip = loss, sampler, batch, seed, clip
        self.accumulate, self.ema = accumulate, ema
        _check_numbers(self)
        self.steps = steps
        _check_optimizer(name, model, optimizer, schedule)
        if loss is None and not callable(getattr(model, "per_sample_loss", None)):
            raise ValueError(
                f"learner {name}: {type(model).__name__} has no per_sample_loss(batch) -> (B,): give a loss"
            )
        self.spec, self.data_args = data if isinstance(data, str) else None, dict(data_args or {})
        self.evaluation_spec = evaluation if isinstance(evaluation, str) else None
        self.evaluation_given = evaluation is not None
        self.evaluation_args = dict(evaluation_args or {})
        try:
            self.data = as_dataset(data, self.data_args, collate)
            if evaluation is None and evaluation_args:
                raise ValueError("evaluation_args without an evaluation")
            self.evaluation = (
                held_out(self.data) if evaluation is None else as_dataset(evaluation, self.evaluation_args, collate)
            )
        except (ValueError, ImportError) as error:
            raise ValueError(f"learner {name}: {error}") from error
        for what, dataset in (("its data", self.data), ("the data to evaluate on", self.evaluation)):
            if dataset is not None and len(dataset) < 1:
                raise ValueError(f"learner {name}: {what} have no samples")
        self._parameters = trained(model)
        self.whole = True  # between two steps; False when an error came in the middle of one
        self._average = None if ema is None else _average(name, model, ema)
        self._sum: np.ndarray | None = None
        self._summed = 0  # jobs in the sum
        self.description = described(
            model,
            optimizer,
            schedule,
            loss=loss,
            sampler=sampler,
            seed=seed,
            data=self.data,
            evaluation=self.evaluation,
        )

    @property
    def steps(self) -> int:
        """Jobs that it opens in all."""
        return self._steps

    @steps.setter
    def steps(self, steps: int) -> None:
        _whole(self.name, "steps", steps, 1)
        if steps % self.accumulate:
            raise ValueError(f"learner {self.name}: its {steps} steps are no multiple of accumulate={self.accumulate}")
        self._steps = steps

    @property
    def averaged(self) -> nn.Module | None:
        """The model with averaged weights, where there is an `ema`."""
        return None if self._average is None else self._average.module

    def ids(self, step: int) -> np.ndarray:
        """(batch,) int64 sample ids of a step. ValueError when the sampler gives anything else."""
        if self.sampler is None:
            draws = np.random.default_rng(np.random.SeedSequence([self.seed, step]))
            return draws.integers(0, len(self.data), self.batch)
        ids = np.asarray(self.sampler(step))
        if ids.shape != (self.batch,) or ids.dtype.kind not in "iu":
            wanted = f"{self.batch} sample ids, whole numbers"
            raise ValueError(
                f"learner {self.name}: the sampler must give {wanted}: got {ids.dtype} of shape {ids.shape}"
            )
        if ids.min() < 0 or ids.max() >= len(self.data):
            among = f"0 .. {len(self.data) - 1}"
            raise ValueError(
                f"learner {self.name}: the sampler must give ids in {among}: got {ids.min()} .. {ids.max()}"
            )
        return ids.astype(np.int64)

    def publish(self) -> np.ndarray:
        """(P,) copy of the parameters, flat, in their order."""
        return torch.cat([p.detach().flatten() for p in self._parameters]).numpy()

    def open(self, step: int) -> JobInput:
        return JobInput(self.publish(), self.ids(step), self.seed)

    def apply(self, total: np.ndarray) -> Mapping[str, float]:
        """Take the decoded sum (P + 2,) of a job, and make an optimizer step if it is the last of those that are accumulated.

        With nothing changed, ValueError when the sum has another length and FloatingPointError when it is not finite.
        FaultError when optimizer or schedule raise: then the learner is not `whole` until it is restored. Returns the mean
        loss of the batch.
        """
        size = sum(p.numel() for p in self._parameters) + EXTRAS
        if len(total) != size:
            raise ValueError(f"a row must have {size} numbers: got {len(total)}")
        if not np.isfinite(total @ total):
            raise FloatingPointError("the decoded gradient is not finite")
        self._sum = total if self._sum is None else self._sum + total
        self._summed += 1
        if self._summed == self.accumulate:
            self.whole = False
            try:
                self._step(torch.from_numpy(self._sum / (self.batch * self.accumulate)))
            except Exception as error:  # an optimizer or schedule may raise anything
                raise FaultError(fault_of(error)) from error
            self._sum, self._summed, self.whole = None, 0, True
        return {"loss": float(total[-EXTRAS] / self.batch)}

    def _step(self, mean: torch.Tensor) -> None:
        """One optimizer step, and what follows it, on the mean (P + 2,) over a batch or several."""
        pieces = torch.split(mean[:-EXTRAS], [p.numel() for p in self._parameters])
        for parameter, piece in zip(self._parameters, pieces, strict=True):
            parameter.grad = piece.view_as(parameter).to(parameter.dtype)
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self._parameters, self.clip)
        self.optimizer.step()
        if isinstance(self.schedule, lr_scheduler.ReduceLROnPlateau):
            self.schedule.step(float(mean[-EXTRAS]))
        elif self.schedule is not None:
            self.schedule.step()
        if self._average is not None:
            self._average.update_parameters(self.model)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return dict(self.model.state_dict())

    def weights(self) -> dict[str, dict[str, torch.Tensor]]:
        """File name -> state dict of what it has learned."""
        averaged = {} if self.averaged is None else {f"{self.name}.ema": dict(self.averaged.state_dict())}
        return {self.name: self.state_dict(), **averaged}

    def snapshot(self) -> Snapshot:
        """Its state between two jobs, not copied. The sampler's state is the number of the step."""
        schedule = None if self.schedule is None else self.schedule.state_dict()
        average = None if self._average is None else dict(self._average.state_dict())
        accumulated = None if self._sum is None else torch.from_numpy(self._sum)
        return Snapshot(self.state_dict(), self.optimizer.state_dict(), schedule, average, accumulated, self._summed)

    def check_fits(self, kept: Snapshot) -> None:
        """ValueError when this is no state of a learner of the same kind: when its tensors have other shapes."""
        check_compatible(self.name, self.snapshot(), kept, self.accumulate)

    def restore(self, kept: Snapshot) -> None:
        """Become what a learner of the same kind was. ValueError, with nothing changed, when it does not fit."""
        self.check_fits(kept)
        self.model.load_state_dict(kept.model)
        self.optimizer.load_state_dict(kept.optimizer)
        if self.schedule is not None and kept.schedule is not None:
            self.schedule.load_state_dict(kept.schedule)
        if self._average is not None and kept.average is not None:
            self._average.load_state_dict(kept.average)
        self._sum, self._summed = None if kept.accumulated is None else kept.accumulated.numpy(), kept.summed
        self.whole = True


def _whole(name: str, what: str, value: Any, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"learner {name}: {what} must be a whole number of at least {least}: got {value!r}")


def _check_numbers(learner: Learner) -> None:
    for what, least in (("batch", 1), ("seed", 0), ("accumulate", 1)):
        _whole(learner.name, what, getattr(learner, what), least)
    if learner.clip is not None and not learner.clip > 0:
        raise ValueError(f"learner {learner.name}: clip must be > 0: got {learner.clip}")
    if learner.ema is not None and not 0 < learner.ema < 1:
        raise ValueError(f"learner {learner.name}: ema must be between 0 and 1: got {learner.ema}")


def _check_optimizer(name: str, model: nn.Module, optimizer: Optimizer, schedule: Schedule | None) -> None:
    """The optimizer moves parameters of the model, all of them here, and the schedule is the optimizer's own."""
    moved = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if not moved & {id(p) for p in trained(model)}:
        raise ValueError(f"learner {name}: its optimizer has no parameter of the model that requires a gradient")
    if strange := moved - {id(p) for p in model.parameters()}:
        raise ValueError(f"learner {name}: its optimizer has {len(strange)} parameters that are not the model's")
    for key, tensor in chain(model.named_parameters(), model.named_buffers()):
        if tensor.device.type != "cpu":
            raise ValueError(f"learner {name}: {key} is on {tensor.device}: move the model to the CPU before training")
    if schedule is not None and schedule.optimizer is not optimizer:
        raise ValueError(f"learner {name}: its schedule is of another optimizer")


def _average(name: str, model: nn.Module, decay: float) -> AveragedModel:
    try:
        return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]
    except Exception as error:  # a user's model may raise anything
        raise ValueError(f"learner {name}: ema needs a copy of its model: {type(error).__name__}: {error}") from error
