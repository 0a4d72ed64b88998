"""The Learner: a model being trained, which opens jobs and applies their decoded gradients."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from distseq.cluster.errors import FaultError
from distseq.cluster.work import fault_of
from distseq.coding.layout import check_parts
from distseq.engine.interfaces import JobInput
from distseq.gradients.data import check_files
from distseq.gradients.memory import checked_events
from distseq.gradients.problem import EXTRAS, Loss, row_length, trained
from distseq.gradients.stream_evaluation import StreamEvaluation
from distseq.gradients.threads import one_thread
from distseq.learners.decoded import after_hooks, set_gradients, with_counts
from distseq.learners.memory import LearnerMemory
from distseq.learners.modes import evaluation_weights, switches, to_training
from distseq.learners.optimizers.by_name import Optimizer, check_step
from distseq.learners.optimizers.loading import load_optimizer
from distseq.learners.optimizers.schedules import Schedule, check_length
from distseq.learners.snapshot import NOT_CUT, Cut, Snapshot, check_compatible, described
from distseq.learners.trials.refusals import check_model
from distseq.models.data.held_out import held_out
from distseq.models.data.torch_data import as_dataset
from distseq.models.temporal import TemporalModel

Sampler = Callable[[int], Any]
# Blocks by default: where they share a pass, many cost little and leave the scheduler free; where each takes a pass of its own,
# its fixed cost is paid for each (docs/decisions/023).
MOST_JOINT, MOST_ALONE = 64, 8


class Learner:
    """A model to train with `distseq.train([Learner(...), ...])`.

    name: names the file of its weights; letters, digits, '.', '_' and '-'.
    model, optimizer: a torch module on the CPU, and a torch optimizer over its parameters, with parameter groups or without.
    data: a map-style torch data set (with `collate` as a DataLoader's `collate_fn`), a `distseq.models.data.Dataset`, or a spec
        such as "csv:FILE", opened with `data_args`.
    evaluation: data to evaluate on, given like `data`; by default the held-out part of a text, and nothing for other data.
    batch, steps: samples per job, and the total number of jobs.
    loss: (model, batch) -> (B,) losses, one per sample; by default the model's own `per_sample_loss(batch)`. Either may return
        a pair instead: (B,) sums of losses, and (B,) counts of what each was summed over, such as tokens. The gradient is then
        that of the sum of all sums over the sum of all counts.
    sampler: step -> (batch,) sample ids, a function of the step alone; by default drawn with replacement from (seed, step).
    clip: bound on the norm of the mean gradient, as for `torch.nn.utils.clip_grad_norm_`.
    schedule: a torch learning-rate schedule of the optimizer, stepped after each optimizer step; ReduceLROnPlateau is stepped
        with the loss of each periodic evaluation, for which the learner's next step waits.
    blocks: for a model or data that draw random numbers (dropout, noise, augmentation), into how many blocks a batch is cut, each
        computed under its own seed; jobs have at most as many parts. Default: min(64, batch) if all draws are dropout of tensors
        with the batch first, else min(8, batch).
    accumulate: jobs per optimizer step, which uses the mean over their batches (with counts: all sums over all counts).
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
        blocks: int | None = None,
    ) -> None:
        self.name, self.model, self.optimizer, self.schedule = name, model, optimizer, schedule
        self.blocks, self.cut = blocks, NOT_CUT
        self.loss, self.sampler, self.batch, self.seed, self.clip = loss, sampler, batch, seed, clip
        self.accumulate, self.ema = accumulate, ema
        # Before `steps`, whose check divides by accumulate.
        _check_numbers(self)
        self.steps = steps
        check_learner_model(name, model)
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
        with naming(name):
            self.memory = self._carried_memory()
            self.stream_evaluation = self._evaluated_stream()
        self.counts: bool | None = None  # whether its loss returns counts; None until it was tried
        self.whole = True  # between two steps; False after an error in the middle of one, until it is restored
        self.changes = 0  # goes up with every change of the state: equal numbers, equal snapshots
        self.use(trained(model), None if ema is None else averaged_model(name, model, ema))
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

    def use(self, parameters: tuple[nn.Parameter, ...], average: AveragedModel | None) -> None:
        """Has these be the trained parameters and their average, of which no job is accumulated yet."""
        self._parameters, self.average, self._length = parameters, average, row_length(parameters)
        self._sum: np.ndarray | None = None  # (P + K + 2,) float64: sum of the jobs since the last optimizer step
        self._summed = 0  # jobs in that sum
        self.evaluated_at = 0  # steps made at the latest evaluation that its schedule has been stepped with

    def _open_data(self, data: Any, evaluation: Any, collate: Callable[[list[Any]], Any] | None) -> None:
        """Opens the data sets to train and to evaluate on. ValueError when one cannot be opened or is empty."""
        try:
            for spec, args in ((data, self.data_args), (evaluation, self.evaluation_args)):
                if isinstance(spec, str):
                    check_files(spec, args)
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

    def _carried_memory(self) -> LearnerMemory | None:
        """The memory of a temporal model. ValueError for what does not go with one."""
        if not isinstance(self.model, TemporalModel):
            return None
        events = checked_events(self.model, self.data)
        for what, given in (("loss", self.loss), ("sampler", self.sampler), ("blocks", self.blocks)):
            if given is not None:
                raise ValueError(
                    f"a temporal model takes its events in order of time, with its own loss: {what} is given"
                )
        return LearnerMemory(self.model, events, self.batch)

    def _evaluated_stream(self) -> StreamEvaluation | None:
        """How a temporal model is evaluated; ValueError for data that do not go with it."""
        if not isinstance(self.model, TemporalModel) or self.evaluation is None:
            return None
        found = StreamEvaluation(self.model, checked_events(self.model, self.data), self.evaluation)
        # Now, while an error still has the learner's name: hosts make theirs when they need them.
        _ = found.candidates
        return found

    @property
    def steps(self) -> int:
        """Total number of jobs that it opens."""
        return self._steps

    @steps.setter
    def steps(self, steps: int) -> None:
        _whole(self.name, "steps", steps, 1)
        if steps % self.accumulate:
            raise ValueError(f"learner {self.name}: steps={steps} is not a multiple of accumulate={self.accumulate}")
        if self.schedule is not None:
            with naming(self.name):
                check_length(self.schedule, steps // self.accumulate, type(self.schedule).__name__)
        self._steps = steps

    @property
    def averaged(self) -> nn.Module | None:
        """The model with averaged weights; None without `ema`."""
        return None if self.average is None else self.average.module

    def ids(self, step: int) -> np.ndarray:
        """(batch,) int64 sample ids of a step. ValueError when the sampler gives anything else."""
        if self.memory is not None:
            batch = self.memory.epochs.slice_of(step)
            return np.arange(batch.start, batch.stop)
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

    @property
    def awaits_evaluation(self) -> bool:
        """Whether its schedule is stepped with the loss of its evaluations: the only one of torch's that needs a metric."""
        return isinstance(self.schedule, lr_scheduler.ReduceLROnPlateau)

    def evaluated(self, step: int, loss: float) -> None:
        """Steps the schedule with the loss of a periodic evaluation, made after `step` steps, if it needs one."""
        if isinstance(self.schedule, lr_scheduler.ReduceLROnPlateau):
            self.schedule.step(loss)
            self.evaluated_at = step

    def to_training(self) -> None:
        """Switches an optimizer that has `train()` and `eval()` to training."""
        to_training(self.optimizer)

    def publish_evaluation(self) -> np.ndarray:
        """(P,) copy of the parameters to evaluate; another than `publish` only where the optimizer has a mode for it."""
        with evaluation_weights(self.optimizer, self._parameters):
            return self.publish()

    def open(self, step: int) -> JobInput:
        """The input of the job of this step: current parameters, and the sample ids of its batch."""
        self.to_training()
        cut, parameters = self.cut, self.publish()
        carried = None if self.memory is None else self.memory.carried(step, parameters)
        return JobInput(
            parameters,
            self.ids(step),
            self.seed,
            counts=self.counts,
            blocks=cut.blocks,
            joint=cut.joint,
            carried=carried,
            state=self.memory,
        )

    def cut_for(self, *, joint: bool) -> Cut:
        """How its batches are cut if it draws random numbers. joint: all draws are dropout of tensors with the batch first."""
        default = min(MOST_JOINT if joint else MOST_ALONE, self.batch)
        return Cut(default if self.blocks is None else self.blocks, joint)

    def cut_in_blocks(self, parts: int) -> int:
        """Cuts the batches of all further jobs into blocks, and returns how many. ValueError if there are fewer than `parts`."""
        # Never joint: what other samples would draw is not known, and every pool and resumed run must cut alike.
        cut = self.cut_for(joint=False)
        check_parts("", cut.blocks, parts)
        self.cut = cut
        return cut.blocks

    def apply(self, total: np.ndarray) -> Mapping[str, float]:
        """Adds the decoded sum (P + K + 2,) of a job, and makes an optimizer step if it is the last one to accumulate.

        It is laid out like a row (distseq.gradients.work). Returns the mean loss of the batch; with counts also "count", no loss
        where that is 0, and "skipped" = 1 where all counts of an optimizer step are 0, so that the step was not made. ValueError
        for a sum of another length and FloatingPointError for one that is not finite, both with nothing changed. FaultError when
        optimizer, schedule or a hook raise: then the learner is not `whole` until it is restored.
        """
        if len(total) != self._length:
            raise ValueError(f"a row must have {self._length} numbers: got {len(total)}")
        # The sum is finite only if every number is, and needs no temporary array. Not `total @ total`: BLAS wakes its threads for
        # it, which the hosts' cores then lack (9 ms).
        with np.errstate(all="ignore"):  # infinities of both signs
            finite = np.isfinite(total.sum())
        if not finite:
            raise FloatingPointError("the decoded gradient is not finite")
        metrics = self._metrics(total)
        self.changes += 1
        # From here on, an error may leave the model partly stepped, or a hook called.
        self.whole = False
        try:
            # Its bits must not depend on the number of threads, those of sums in hooks and optimizers included.
            with one_thread():
                stepped = self._add(total)
        # An optimizer, a schedule or a hook may raise anything, SystemExit too, which would end the other learners.
        except (Exception, SystemExit) as error:
            raise FaultError(fault_of(error)) from error
        self.whole = True
        if self.memory is not None:
            self.memory.done += 1
        return metrics if stepped else {**metrics, "skipped": 1}

    def _metrics(self, total: np.ndarray) -> dict[str, float]:
        if not self.counts:
            return {"loss": float(total[-EXTRAS] / self.batch)}
        count = float(total[-1])
        return {"loss": float(total[-EXTRAS] / count), "count": count} if count > 0 else {"count": count}

    def _add(self, total: np.ndarray) -> bool:
        """Adds the sum of a job, and steps with the mean once there are `accumulate` of them; False if all counts are 0."""
        samples = self.batch * self.accumulate
        if not self.counts:
            total = after_hooks(self._parameters, total, samples)
        # float64, as the pool decodes: rounding to the parameters' dtype happens once, in the step.
        self._sum = total if self._sum is None else self._sum + total
        self._summed += 1
        if self._summed < self.accumulate:
            return True
        whole, self._sum, self._summed = self._sum, None, 0
        # Without counts not the decoded one, which dense codes round.
        count = float(whole[-1]) if self.counts else samples
        if count > 0:
            # Only now is it known by what to divide.
            whole = after_hooks(self._parameters, whole, count) if self.counts else whole
            self._step(torch.from_numpy(whole / count))
        return count > 0

    def _step(self, mean: torch.Tensor) -> None:
        """One optimizer step with the mean (P + K + 2,) over one or several batches, then the schedule and the average."""
        self.to_training()
        self.model.zero_grad()
        set_gradients(self._parameters, mean)
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self._parameters, self.clip)
        self.optimizer.step()
        if self.schedule is not None and not self.awaits_evaluation:
            self.schedule.step()
        if self.average is not None:
            self.average.update_parameters(self.model)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return dict(self.model.state_dict())

    def weights(self) -> dict[str, dict[str, torch.Tensor]]:
        """The weights to save, which are those to evaluate: file name -> state dict, of the model and of its average."""
        averaged = {} if self.averaged is None else {f"{self.name}.ema": dict(self.averaged.state_dict())}
        with evaluation_weights(self.optimizer, self._parameters):
            own = self.state_dict()
            # Copied, because leaving evaluation mode changes the parameters in place.
            own = {key: tensor.clone() for key, tensor in own.items()} if switches(self.optimizer) else own
        return {self.name: own, **averaged}

    def snapshot(self) -> Snapshot:
        """The state between two jobs; tensors are not copied. The sampler has no state but the number of the step."""
        schedule = None if self.schedule is None else self.schedule.state_dict()
        average = None if self.average is None else dict(self.average.state_dict())
        accumulated = None if self._sum is None else torch.from_numpy(self._sum)
        return Snapshot(
            self.state_dict(),
            self.optimizer.state_dict(),
            schedule,
            average,
            accumulated,
            self._summed,
            self.evaluated_at,
            self.cut,
            None if self.memory is None else self.memory.snapshot(),
        )

    def check_fits(self, saved: Snapshot) -> None:
        """ValueError when a saved state does not fit this learner: other shapes, groups, schedule or accumulation."""
        check_compatible(self.name, self.snapshot(), saved, self.accumulate, self.blocks)

    def restore(self, saved: Snapshot) -> None:
        """Restores a saved state. ValueError, with nothing changed, when it does not fit."""
        self.check_fits(saved)
        self.changes += 1
        own = self.optimizer.state_dict()
        try:
            # First, since it may refuse: the shapes of the others have been compared.
            load_optimizer(self.optimizer, saved.optimizer)
        # An optimizer may raise anything for a state that it did not write, and may have taken half of it by then.
        except Exception as error:
            load_optimizer(self.optimizer, own)
            raise ValueError(f"learner {self.name}: its optimizer cannot be restored: {fault_of(error).text}") from None
        self.model.load_state_dict(saved.model)
        if self.memory is not None and saved.memory is not None:
            self.memory.restore(saved.memory)
        if self.schedule is not None and saved.schedule is not None:
            self.schedule.load_state_dict(saved.schedule)
        if self.average is not None and saved.average is not None:
            self.average.load_state_dict(saved.average)
        self.cut = saved.cut
        self._sum = None if saved.accumulated is None else with_counts(self._parameters, saved.accumulated.numpy())
        self._summed, self.evaluated_at = saved.summed, saved.evaluated
        self.whole = True


def _whole(name: str, what: str, value: Any, least: int) -> None:
    # True is an int in Python, and certainly a mistake here.
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"learner {name}: {what} must be a whole number of at least {least}: got {value!r}")


def check_learner_model(name: str, model: nn.Module) -> None:
    """ValueError naming the learner and what of its model cannot be trained on workers."""
    with naming(name):
        check_model(model)


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Names a learner in a ValueError."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"learner {name}: {error}") from None


def _check_numbers(learner: Learner) -> None:
    for what, least in (("batch", 1), ("seed", 0), ("accumulate", 1)):
        _whole(learner.name, what, getattr(learner, what), least)
    if learner.blocks is not None:
        _whole(learner.name, "blocks", learner.blocks, 1)
        if learner.blocks > learner.batch:
            raise ValueError(f"learner {learner.name}: blocks={learner.blocks} is more than batch={learner.batch}")
    clip: Any = learner.clip
    if clip is not None and not (isinstance(clip, int | float | np.floating) and clip > 0):
        raise ValueError(f"learner {learner.name}: clip must be > 0: got {clip!r}")
    ema: Any = learner.ema
    if ema is not None and not (isinstance(ema, int | float | np.floating) and 0 < ema < 1):
        raise ValueError(f"learner {learner.name}: ema must be between 0 and 1: got {ema!r}")


def _check_optimizer(name: str, model: nn.Module, optimizer: Optimizer, schedule: Schedule | None) -> None:
    """ValueError unless the optimizer trains parameters of the model and no others, on the CPU, with its own schedule."""
    with naming(name):
        check_step(optimizer)
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


def averaged_model(name: str, model: nn.Module, decay: float) -> AveragedModel:
    """A running average of the model's weights. ValueError for a model that cannot be copied."""
    try:
        # torch's own, for its bits and its state_dict are what users of torch expect.
        return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]
    except Exception as error:  # a user's model may raise anything
        raise ValueError(
            f"learner {name}: ema needs a copy of the model, but copying failed: {type(error).__name__}: {error}"
        ) from error
