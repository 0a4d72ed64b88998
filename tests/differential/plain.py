"""The oracle: each learner alone, in a plain PyTorch loop over whole batches that knows nothing of parts, codes or pools."""

import os
import random
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from distseq.gradients.randomness import block_seeds
from tests.differential.models import LOSSES
from tests.differential.worlds import World, ids


def trained_plainly(world: World, blocks: int, evaluate_every: int = 0) -> tuple[nn.Module, nn.Module | None]:
    """The model after its steps, and its average. blocks: of the batch, each computed under its own seed; 0 = one pass."""
    # A kernel whose second derivative were wrong would be so here as well.
    kernels = {"DISTSEQ_KERNELS": "reference"} if world.loss == "penalized" else {}
    with patch.dict(os.environ, kernels):
        return _trained(world, blocks, evaluate_every)


def _trained(world: World, blocks: int, evaluate_every: int) -> tuple[nn.Module, nn.Module | None]:
    learner = world.learner("plain")  # for its model, optimizer and schedule
    model, optimizer, schedule, data = learner.model, learner.optimizer, learner.schedule, world.data()
    average = None if world.ema is None else AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(world.ema))
    total, count = torch.zeros((), dtype=torch.float64), 0.0
    for step in range(world.steps):
        if step % world.accumulate == 0:
            optimizer.zero_grad()
            total, count = torch.zeros((), dtype=torch.float64), 0.0
        numbers = ids(world, step)
        cuts = np.array_split(numbers, blocks) if blocks else [numbers]
        for block, seed in zip(cuts, block_seeds(world.seed, step, blocks) if blocks else [0], strict=True):
            seed_all(seed)
            loss, one = sums(world, model, data[block.tolist()])
            total, count = total + loss, count + one
        # As is usual: each batch backwards for itself. Where losses have counts, their sum is known only at the end.
        if world.loss != "counted":
            (total / (world.batch * world.accumulate)).backward()
            total = torch.zeros((), dtype=torch.float64)
        # Where all counts are 0 there is nothing to divide by.
        if (step + 1) % world.accumulate == 0 and count:
            if world.loss == "counted":
                (total / count).backward()
            if world.clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), world.clip)
            optimizer.step()
            if schedule is not None and world.schedule != "ReduceLROnPlateau":
                schedule.step()
            if average is not None:
                average.update_parameters(model)
        if evaluate_every and (step + 1) % evaluate_every == 0 and world.schedule == "ReduceLROnPlateau":
            schedule.step(evaluated(world, model))
    return model, None if average is None else average.module


def evaluated(world: World, model: nn.Module) -> float:
    """The mean loss over the evaluation data, without dropout."""
    model.eval()
    # Not under no_grad: a loss with a penalty differentiates.
    loss, count = sums(world, model, world.data(evaluation=True)[:])
    model.train()
    return float(loss.detach()) / count


def seed_all(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def sums(world: World, model: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, float]:
    """The sum of losses of a block and its normalizer."""
    found = LOSSES[world.loss](model, batch)
    if isinstance(found, tuple):
        return found[0].sum(), float(found[1].sum())
    return found.sum(), float(len(found))
