"""One model being trained: opens jobs, takes decoded gradients, and does everything that is not linear, once, after decoding."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import lr_scheduler

from distseq.cluster.errors import FaultError
from distseq.cluster.work import fault_of
from distseq.roles import Opening
from distseq.task import EXTRAS, trained

Optimizer = torch.optim.Optimizer
Schedule = lr_scheduler.LRScheduler

SHORT = {"cosine": "CosineAnnealingLR", "step": "StepLR"}
# Made from functions or other schedules, which a job file cannot hold.
UNWRITABLE = ("LambdaLR", "MultiplicativeLR", "SequentialLR", "ChainedScheduler")
# Schedule -> the argument that is the learner's number of steps where the job does not say otherwise.
LENGTH = {"CosineAnnealingLR": "T_max", "OneCycleLR": "total_steps"}


@dataclass(frozen=True)
class Snapshot:
    """A learner between two steps: state dicts as torch makes them."""

    model: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    schedule: dict[str, Any] | None


class Learner:
    """A model, its optimizer and its sampler; `batch` samples a step out of `samples`, drawn with replacement.

    The batch of a step depends on (seed, step) only. `schedule`, if any, is stepped after each optimizer step, on the batch's
    loss where it is ReduceLROnPlateau. `clip` bounds the norm of the decoded mean gradient.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        samples: int,
        batch: int,
        steps: int,
        seed: int = 0,
        clip: float | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        if batch < 1 or steps < 1:
            raise ValueError(f"learner {name}: batch and steps must be at least 1: got batch={batch}, steps={steps}")
        if samples < 1:
            raise ValueError(f"learner {name}: its data have no samples")
        if clip is not None and not clip > 0:
            raise ValueError(f"learner {name}: clip must be > 0: got {clip}")
        self.name, self.model, self.optimizer, self.steps = name, model, optimizer, steps
        self._samples, self._batch, self._seed, self._clip, self._schedule = samples, batch, seed, clip, schedule
        self._parameters = trained(model)
        self.whole = True  # between two steps; False when an error came in the middle of one

    def ids(self, step: int) -> np.ndarray:
        """(batch,) int64 sample ids of a step."""
        draws = np.random.default_rng(np.random.SeedSequence([self._seed, step]))
        return draws.integers(0, self._samples, self._batch)

    def publish(self) -> np.ndarray:
        """(P,) copy of the parameters, flat, in their order."""
        return torch.cat([p.detach().flatten() for p in self._parameters]).numpy()

    def open(self, step: int) -> Opening:
        return Opening(self.publish(), self.ids(step), self._seed)

    def apply(self, total: np.ndarray) -> Mapping[str, float]:
        """One optimizer step on the decoded sum (P + 2,); returns the mean loss of the batch.

        With nothing changed, ValueError when the sum has another length and FloatingPointError when it is not finite.
        FaultError when optimizer or schedule raise: then the learner is not `whole` until it is restored.
        """
        sizes = [p.numel() for p in self._parameters]
        if len(total) != sum(sizes) + EXTRAS:
            raise ValueError(f"a row must have {sum(sizes) + EXTRAS} numbers: got {len(total)}")
        if not np.isfinite(total @ total):
            raise FloatingPointError("the decoded gradient is not finite")
        mean = torch.from_numpy(total / self._batch)
        self.whole = False
        try:
            self._step(mean, sizes)
        except Exception as error:  # an optimizer or schedule may raise anything
            raise FaultError(fault_of(error)) from error
        self.whole = True
        return {"loss": float(mean[-EXTRAS])}

    def _step(self, mean: torch.Tensor, sizes: list[int]) -> None:
        for parameter, piece in zip(self._parameters, torch.split(mean[:-EXTRAS], sizes), strict=True):
            parameter.grad = piece.view_as(parameter).to(parameter.dtype)
        if self._clip is not None:
            nn.utils.clip_grad_norm_(self._parameters, self._clip)
        self.optimizer.step()
        if isinstance(self._schedule, lr_scheduler.ReduceLROnPlateau):
            self._schedule.step(float(mean[-EXTRAS]))
        elif self._schedule is not None:
            self._schedule.step()

    def state_dict(self) -> dict[str, torch.Tensor]:
        return dict(self.model.state_dict())

    def snapshot(self) -> Snapshot:
        """Its state between two steps, not copied. The sampler's state is the number of the step."""
        schedule = None if self._schedule is None else self._schedule.state_dict()
        return Snapshot(self.state_dict(), self.optimizer.state_dict(), schedule)

    def restore(self, kept: Snapshot) -> None:
        """Become what a learner of the same kind was. ValueError, with nothing changed, when its tensors have other shapes."""
        own = self.snapshot()
        for place, mine, theirs in (
            ("model", _shapes(own.model), _shapes(kept.model)),
            ("optimizer", _groups(own.optimizer), _groups(kept.optimizer)),
        ):
            if mine != theirs:
                wrong = sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))[0]
                raise ValueError(
                    f"learner {self.name}: {wrong} of its {place} is {mine.get(wrong)}, in the checkpoint {theirs.get(wrong)}"
                )
        if (kept.schedule is None) != (self._schedule is None):
            raise ValueError(f"learner {self.name}: a learning-rate schedule is in one of checkpoint and job only")
        for key in set(LENGTH.values()) & (own.schedule or {}).keys():
            mine, theirs = (own.schedule or {})[key], (kept.schedule or {})[key]
            if mine != theirs:
                raise ValueError(
                    f"learner {self.name}: its schedule is {theirs} steps long in the checkpoint and {mine} in the job: "
                    "with a schedule, the steps of a run cannot change"
                )
        self.model.load_state_dict(kept.model)
        self.optimizer.load_state_dict(kept.optimizer)
        if self._schedule is not None and kept.schedule is not None:
            self._schedule.load_state_dict(kept.schedule)
        self.whole = True


def _shapes(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    return {key: f"{str(t.dtype).rpartition('.')[2]} {tuple(t.shape)}" for key, t in tensors.items()}


def _groups(optimizer: Mapping[str, Any]) -> dict[str, str]:
    """What must agree of an optimizer's groups: their parameters."""
    groups = optimizer["param_groups"]
    return {f"group {g}": f"parameters {one['params']}" for g, one in enumerate(groups)}


def torch_optimizer(name: str, args: Mapping[str, float], parameters: tuple[nn.Parameter, ...]) -> Optimizer:
    """torch.optim's optimizer of that name, case ignored. ValueError for another name or arguments it does not take."""
    known: dict[str, Callable[..., Optimizer]] = {
        key.lower(): value
        for key, value in vars(torch.optim).items()
        if isinstance(value, type) and issubclass(value, Optimizer) and value is not Optimizer
    }
    if name.lower() not in known:
        raise ValueError(f"unknown optimizer {name!r}; known: {', '.join(sorted(known))}")
    try:
        return known[name.lower()](parameters, **args)
    except (TypeError, ValueError) as error:
        raise ValueError(f"optimizer {name} with {dict(args)}: {error}") from None


def torch_schedule(name: str, args: Mapping[str, Any], optimizer: Optimizer, steps: int) -> Schedule:
    """torch.optim.lr_scheduler's schedule of that name, case ignored, or `cosine` or `step`; it is stepped `steps` times.

    ValueError for another name, arguments it does not take, or a schedule that ends before the learner does.
    """
    known: dict[str, Callable[..., Schedule]] = {
        key.lower(): value
        for key, value in vars(lr_scheduler).items()
        if isinstance(value, type) and issubclass(value, Schedule) and key not in UNWRITABLE and key[0] != "_"
    }
    del known["lrscheduler"]
    known |= {short: known[full.lower()] for short, full in SHORT.items()}
    if name.lower() not in known:
        raise ValueError(f"unknown schedule {name!r}; known: {', '.join(sorted(known))}")
    kind = known[name.lower()]
    length = LENGTH.get(kind.__name__)
    implied = {length: steps} if length is not None and not {"epochs", "steps_per_epoch"} & args.keys() else {}
    try:
        schedule = kind(optimizer, **{**implied, **args})
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(f"schedule {name} with {dict(args)}: {error}") from None
    if getattr(schedule, "total_steps", steps) < steps:
        raise ValueError(f"schedule {name} with {dict(args)} ends before the learner's {steps} steps")
    return schedule
