"""The Learner: a model being trained, which opens jobs and applies their decoded gradients."""

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
    """A model to train with `distseq.train([Learner(...), ...])`.

    name: names the file of its weights; letters, digits, '.', '_' and '-'.
    model, optimizer: a torch module on the CPU, and a torch optimizer over its parameters, with parameter groups or without.
    data: a map-style torch data set (with `collate` as a DataLoader's `collate_fn`), a `distseq.models.data.Dataset`, or a spec
        such as "csv:FILE", opened with `data_args`.
    evaluation: data to evaluate on, given like `data`; by default the held-out part of a text, and nothing for other data.
    batch, steps: samples per job, and the total number of jobs.
    loss: (model, batch) -> (B,) losses, one per sample; by default the model's own `per_sample_loss(batch)`.
    sampler: step -> (batch,) sample ids, a function of the step alone; by default drawn with replacement from (seed, step).
    clip: bound on the norm of the mean gradient, as for `torch.nn.utils.clip_grad_norm_`.
    schedule: a torch learning-rate schedule of the optimizer, stepped after each optimizer step (ReduceLROnPlateau with the
        batch's loss).
    accumulate: jobs per optimizer step, which uses the mean over their batches.
    ema: decay of an exponential moving average of the weights; the averaged model is `averaged`.

    Training changes model, optimizer and schedule in place. Clipping, the optimizer and whatever else is not linear runs here,
    once, after decoding. ValueError, in one line, for an argument that makes no sense.

    >>> model = torch.nn.Linear(2, 1)
    >>> data = torch.utils.data.TensorDataset(torch.randn(64, 2), torch.randn(64, 1))
    >>> loss = lambda model, batch: (model(batch[0]) - batch[1]).square().mean(1)
    >>> learner = Learner("line", model, torch.optim.SGD(model.parameters(), 0.1), data=data, batch=8, steps=5, loss=loss)
    >>> learner.open(0).parameters.shape, learner.open(0).ids.shape
    ((3,), (8,))
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
        # Before `steps`, whose check divides by accumulate.
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
        self._open_data(data, evaluation, collate)
        self._parameters = trained(model)
        self.whole = True  # between two steps; False after an error in the middle of one, until it is restored
        self._average = None if ema is None else _average(name, model, ema)
        self._sum: np.ndarray | None = None  # (P + 2,) float64: sum of the jobs since the last optimizer step
        self._summed = 0  # jobs in that sum
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

    def _open_data(self, data: Any, evaluation: Any, collate: Callable[[list[Any]], Any] | None) -> None:
        """Opens the data sets to train and to evaluate on. ValueError when one cannot be opened or is empty."""
        try:
            self.data = as_dataset(data, self.data_args, collate)
            if evaluation is None and self.evaluation_args:
                # Most likely a forgotten key: the held-out part of a text takes no arguments.
                raise ValueError("evaluation_args is given, but no evaluation")
            self.evaluation = (
                held_out(self.data) if evaluation is None else as_dataset(evaluation, self.evaluation_args, collate)
            )
        except (ValueError, ImportError) as error:
            raise ValueError(f"learner {self.name}: {error}") from error
        for what, dataset in (("its data", self.data), ("the data to evaluate on", self.evaluation)):
            if dataset is not None and len(dataset) < 1:
                raise ValueError(f"learner {self.name}: {what} have no samples")

    @property
    def steps(self) -> int:
        """Total number of jobs that it opens."""
        return self._steps

    @steps.setter
    def steps(self, steps: int) -> None:
        _whole(self.name, "steps", steps, 1)
        if steps % self.accumulate:
            raise ValueError(f"learner {self.name}: steps={steps} is not a multiple of accumulate={self.accumulate}")
        self._steps = steps

    @property
    def averaged(self) -> nn.Module | None:
        """The model with averaged weights; None without `ema`."""
        return None if self._average is None else self._average.module

    def ids(self, step: int) -> np.ndarray:
        """(batch,) int64 sample ids of a step. ValueError when the sampler gives anything else."""
        if self.sampler is None:
            # Keyed by the step: a resumed run, or a job that is opened again, draws the same batch without any stored state.
            draws = np.random.default_rng(np.random.SeedSequence([self.seed, step]))
            return draws.integers(0, len(self.data), self.batch)
        ids = np.asarray(self.sampler(step))
        if ids.shape != (self.batch,) or ids.dtype.kind not in "iu":
            wanted = f"{self.batch} sample ids, which are whole numbers"
            raise ValueError(
                f"learner {self.name}: the sampler must return {wanted}: got {ids.dtype} of shape {ids.shape}"
            )
        if ids.min() < 0 or ids.max() >= len(self.data):
            among = f"0 .. {len(self.data) - 1}"
            raise ValueError(
                f"learner {self.name}: the sampler must return ids in {among}: got {ids.min()} .. {ids.max()}"
            )
        return ids.astype(np.int64)

    def publish(self) -> np.ndarray:
        """(P,) copy of the trained parameters, flat, in their order."""
        return torch.cat([p.detach().flatten() for p in self._parameters]).numpy()

    def open(self, step: int) -> JobInput:
        """The input of the job of this step: current parameters, and the sample ids of its batch."""
        return JobInput(self.publish(), self.ids(step), self.seed)

    def apply(self, total: np.ndarray) -> Mapping[str, float]:
        """Adds the decoded sum (P + 2,) of a job, and makes an optimizer step if it is the last one to accumulate.

        Returns the mean loss of the batch. ValueError for a sum of another length and FloatingPointError for one that is not
        finite, both with nothing changed. FaultError when optimizer or schedule raise: then the learner is not `whole` until it
        is restored.
        """
        size = sum(p.numel() for p in self._parameters) + EXTRAS
        if len(total) != size:
            raise ValueError(f"a row must have {size} numbers, one per parameter and {EXTRAS} more: got {len(total)}")
        # The sum of squares is finite only if every number is, and needs no temporary array.
        if not np.isfinite(total @ total):
            raise FloatingPointError("the decoded gradient is not finite")
        # float64, as the pool decodes: rounding to the parameters' dtype happens once, in the step.
        self._sum = total if self._sum is None else self._sum + total
        self._summed += 1
        if self._summed == self.accumulate:
            # From here on, an error leaves the model partly stepped.
            self.whole = False
            try:
                self._step(torch.from_numpy(self._sum / (self.batch * self.accumulate)))
            except Exception as error:  # an optimizer or schedule may raise anything
                raise FaultError(fault_of(error)) from error
            self._sum, self._summed, self.whole = None, 0, True
        return {"loss": float(total[-EXTRAS] / self.batch)}

    def _step(self, mean: torch.Tensor) -> None:
        """One optimizer step with the mean (P + 2,) over one or several batches, then the schedule and the average."""
        # The gradient comes first, then the extras, in the order of GradientWork's rows.
        pieces = torch.split(mean[:-EXTRAS], [p.numel() for p in self._parameters])
        for parameter, piece in zip(self._parameters, pieces, strict=True):
            parameter.grad = piece.view_as(parameter).to(parameter.dtype)
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self._parameters, self.clip)
        self.optimizer.step()
        # The only schedule of torch that needs a metric: the mean loss of the batches of this step.
        if isinstance(self.schedule, lr_scheduler.ReduceLROnPlateau):
            self.schedule.step(float(mean[-EXTRAS]))
        elif self.schedule is not None:
            self.schedule.step()
        if self._average is not None:
            self._average.update_parameters(self.model)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return dict(self.model.state_dict())

    def weights(self) -> dict[str, dict[str, torch.Tensor]]:
        """The weights to save: file name -> state dict, of the model and of its average."""
        averaged = {} if self.averaged is None else {f"{self.name}.ema": dict(self.averaged.state_dict())}
        return {self.name: self.state_dict(), **averaged}

    def snapshot(self) -> Snapshot:
        """The state between two jobs; tensors are not copied. The sampler has no state but the number of the step."""
        schedule = None if self.schedule is None else self.schedule.state_dict()
        average = None if self._average is None else dict(self._average.state_dict())
        accumulated = None if self._sum is None else torch.from_numpy(self._sum)
        return Snapshot(self.state_dict(), self.optimizer.state_dict(), schedule, average, accumulated, self._summed)

    def check_fits(self, saved: Snapshot) -> None:
        """ValueError when a saved state does not fit this learner: other shapes, groups, schedule or accumulation."""
        check_compatible(self.name, self.snapshot(), saved, self.accumulate)

    def restore(self, saved: Snapshot) -> None:
        """Restores a saved state. ValueError, with nothing changed, when it does not fit."""
        self.check_fits(saved)
        self.model.load_state_dict(saved.model)
        self.optimizer.load_state_dict(saved.optimizer)
        if self.schedule is not None and saved.schedule is not None:
            self.schedule.load_state_dict(saved.schedule)
        if self._average is not None and saved.average is not None:
            self._average.load_state_dict(saved.average)
        self._sum, self._summed = None if saved.accumulated is None else saved.accumulated.numpy(), saved.summed
        self.whole = True


def _whole(name: str, what: str, value: Any, least: int) -> None:
    # True is an int in Python, and certainly a mistake here.
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
    """ValueError unless the optimizer trains parameters of the model and no others, on the CPU, with its own schedule."""
    # By identity: equal tensors of another model would be stepped without ever reaching this one.
    moved = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if not moved & {id(p) for p in trained(model)}:
        raise ValueError(f"learner {name}: the optimizer holds none of the model's parameters that require a gradient")
    if strange := moved - {id(p) for p in model.parameters()}:
        raise ValueError(f"learner {name}: the optimizer holds {len(strange)} parameters that are not the model's")
    for key, tensor in chain(model.named_parameters(), model.named_buffers()):
        # The master's copy is read and stepped on its CPU; hosts move their own copies to their device.
        if tensor.device.type != "cpu":
            raise ValueError(f"learner {name}: {key} is on {tensor.device}: move the model to the CPU before training")
    if schedule is not None and schedule.optimizer is not optimizer:
        raise ValueError(f"learner {name}: the schedule belongs to another optimizer")


def _average(name: str, model: nn.Module, decay: float) -> AveragedModel:
    try:
        # torch's own, for its bits and its state_dict are what users of torch expect.
        return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]
    except Exception as error:  # a user's model may raise anything
        raise ValueError(
            f"learner {name}: ema needs a copy of the model, but copying failed: {type(error).__name__}: {error}"
        ) from error
