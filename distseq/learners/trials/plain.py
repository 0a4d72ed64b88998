"""Training in plain PyTorch, in one process: what a run must equal, for the trial at its start and for tests."""

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from distseq.gradients.data import Source
from distseq.gradients.modes import evaluation_mode, without_graph
from distseq.gradients.problem import Problem, losses_and_counts, trained
from distseq.gradients.randomness import block_seeds
from distseq.gradients.work import AT_ONCE
from distseq.learners.learner import Learner
from distseq.learners.modes import evaluation_weights


def plain_problem(learner: Learner) -> Problem:
    """The learner's own model, data and loss."""
    source = Source(type(learner.data).__name__, learner.data)
    return Problem(learner.model, source, trained(learner.model), learner.loss)


def train_plainly(
    learner: Learner,
    *,
    blocks: int = 0,
    evaluate_every: int = 0,
    evaluated: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """Trains a learner in place by `.backward()` of the mean loss of each whole batch, without a pool, parts or codes.

    blocks: for a learner that draws random numbers, into how many its batches are cut, each computed under its own seed.
    evaluate_every: steps between evaluations, on which ReduceLROnPlateau depends; evaluated: told the step and the loss of each.

    >>> model = torch.nn.Linear(2, 1)
    >>> data = torch.utils.data.TensorDataset(torch.randn(64, 2), torch.randn(64, 1))
    >>> loss = lambda model, batch: (model(batch[0]) - batch[1]).square().mean(1)
    >>> learner = Learner("line", model, torch.optim.SGD(model.parameters(), 0.1), data=data, batch=8, steps=5, loss=loss)
    >>> train_plainly(learner)
    >>> model.weight.grad.shape
    torch.Size([1, 2])
    """
    problem, optimizer, schedule, count = plain_problem(learner), learner.optimizer, learner.schedule, 0.0
    for step in range(learner.steps):
        if step % learner.accumulate == 0:
            learner.to_training()
            learner.model.zero_grad()
            count = 0.0
        count += _backward(problem, learner, step, blocks)
        # Where all counts are 0 there is nothing to divide by.
        if (step + 1) % learner.accumulate == 0 and count:
            _scale(problem, learner.batch * learner.accumulate / count)
            if learner.clip is not None:
                nn.utils.clip_grad_norm_(learner.model.parameters(), learner.clip)
            optimizer.step()
            if schedule is not None and not isinstance(schedule, ReduceLROnPlateau):
                schedule.step()
            if learner.average is not None:
                learner.average.update_parameters(learner.model)
        if evaluate_every and (step + 1) % evaluate_every == 0:
            loss = evaluate_plainly(learner)
            if isinstance(schedule, ReduceLROnPlateau):
                schedule.step(loss)
            evaluated(step + 1, loss)


def _backward(problem: Problem, learner: Learner, step: int, blocks: int) -> float:
    """Adds the gradient of the sum of a batch's losses / (batch * accumulate); the sum of its counts, or of samples."""
    count, samples = 0.0, learner.batch * learner.accumulate
    for block, seed in zip(
        np.array_split(learner.ids(step), blocks or 1), block_seeds(learner.seed, step, blocks or 1), strict=True
    ):
        if blocks:
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)
        losses_B, counts_B = losses_and_counts(problem, block, problem.source.batch(block))
        (losses_B.sum() / samples).backward()  # type: ignore[no-untyped-call]
        count += len(block) if counts_B is None else float(counts_B.sum())
    return count


def _scale(problem: Problem, factor: float) -> None:
    for parameter in problem.parameters:
        if parameter.grad is not None and factor != 1:
            parameter.grad *= factor


def evaluate_plainly(learner: Learner) -> float:
    """The mean loss over the learner's evaluation data, with model and optimizer in evaluation mode. ValueError without any."""
    data = learner.evaluation
    if data is None:
        raise ValueError(f"learner {learner.name} has no data to be evaluated on")
    problem = replace(plain_problem(learner), source=Source(type(data).__name__, data))
    with evaluation_weights(learner.optimizer, problem.parameters), evaluation_mode(learner.model) as model:
        problem, total, count = replace(problem, model=model), 0.0, 0.0
        for ids in np.array_split(np.arange(len(data)), -(-len(data) // AT_ONCE)):
            losses_B, counts_B = without_graph(partial(losses_and_counts, problem, ids, problem.source.batch(ids)))
            total += float(losses_B.detach().double().sum())
            count += len(ids) if counts_B is None else float(counts_B.sum())
    return total / count
