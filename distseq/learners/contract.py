"""Checks, on a few samples and before any worker starts, that a model's gradients add up and can be coded.

The contract: a sample's loss depends only on that sample and the parameters. A model that breaks it is refused with a one-line
ValueError that gives the reason.
"""

import random
from itertools import chain

import numpy as np
import torch
from torch import nn

from distseq.cluster.pool import Payload
from distseq.gradients.problem import EXTRAS, Problem, load_vector, losses
from distseq.gradients.work import GradientWork

# Samples of the two parts that are compared with their union. A part of one sample shows a loss that calls squeeze(), and parts
# of unequal size one that divides by the size of its batch.
PARTS = (1, 3)
# Neither 1 nor of one sign, like the coefficients of dense codes.
WEIGHTS = (0.75, -1.5)
# Relative to the norm of the parts' rows: far above the rounding of the dtype, since sums run in another order, and far below
# the effect of samples that influence each other's loss.
TOLERANCE = {"float32": 1e-4, "float64": 1e-9}
UNUSUAL = 0x5EED_0DD  # a seed that nothing else uses
KEYED = "randomness must be keyed by (seed, job, sample)"


def check_contract(work: GradientWork, payload: Payload, built: nn.Module) -> np.ndarray:
    """Checks the learner of `payload` and returns a row (P + 2,) of it.

    built: a second model, built from the same seed. ValueError for a broken contract, and whatever the model or its data raise.
    A row that is not finite is returned unchecked: applying it gives a clearer error.
    """
    problem = work.problem(payload.learner)
    # First, by name: running statistics also break the checks below, which would describe it less clearly.
    _check_no_running_statistics(problem.model)
    _check_rebuild(problem.model, built)
    load_vector(problem.parameters, payload.parameters)
    ids, weights = _samples(len(problem.data)), np.repeat(WEIGHTS, PARTS)
    # Before the first forward pass, so that a change by any later one shows.
    before = _state(problem.model)
    _check_reaches_parameter(problem, ids)
    _check_unchanged(before, problem.model)
    row = _check_repeatable(work, payload, ids, weights)
    if np.isfinite(row).all():
        _check_additive(work, payload, ids, weights, row)
    return row


def draws(problem: Problem) -> bool:
    """Whether computing a loss draws from a global random generator.

    Such a learner's data must not be read ahead: the reading thread could draw from the same generator in between.
    """
    ids = _samples(len(problem.data))
    # Read first: what counts is whether the loss draws, not the data set.
    batch = problem.source.batch(ids)
    kept = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            # A model may seed the generators itself: they begin in a state that it is unlikely to leave them in, so that any
            # use shows.
            for seed in (torch.manual_seed, np.random.seed, random.seed):
                seed(UNUSUAL)
            before = _generators()
            # Without gradients: only the draws matter.
            losses(problem, ids, batch)
            return _generators() != before
    finally:
        np.random.set_state(kept[0])
        random.setstate(kept[1])


def _generators() -> tuple[bytes, str, object]:
    return torch.get_rng_state().numpy().tobytes(), repr(np.random.get_state()), random.getstate()


def _check_no_running_statistics(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) or getattr(module, "running_mean", None) is not None:
            raise ValueError(
                f"{type(module).__name__} {name!r} couples the samples of a batch or keeps running statistics: "
                "use GroupNorm or LayerNorm"
            )


def _check_rebuild(model: nn.Module, built: nn.Module) -> None:
    """Everything but trained parameters, which are sent to every host, must be the same whenever the model is built."""
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    one, other = _state(model), _state(built)
    for name in (*one, *(other.keys() - one.keys())):
        if name not in trained and not _same(one.get(name), other.get(name)):
            raise ValueError(
                f"building the model twice from one seed gives two different values of {name!r}: draw it with torch's "
                "random functions, which are seeded"
            )


def _check_reaches_parameter(problem: Problem, ids: np.ndarray) -> None:
    total = losses(problem, ids, problem.source.batch(ids)).sum()
    if total.requires_grad:
        found = torch.autograd.grad(total, problem.parameters, allow_unused=True)
        if any(gradient is not None for gradient in found):
            return
    raise ValueError("the loss depends on no parameter that requires a gradient: every gradient is None")


def _check_unchanged(before: dict[str, torch.Tensor], model: nn.Module) -> None:
    after = _state(model)
    for name in (*before, *(after.keys() - before.keys())):
        if not _same(before.get(name), after.get(name)):
            kind = "parameter" if name in dict(model.named_parameters()) else "buffer"
            raise ValueError(
                f"forward changes {kind} {name!r}: each worker would change its own copy, and the changes would be lost"
            )


def _check_repeatable(work: GradientWork, payload: Payload, ids: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Computes the row from two states of torch's generator: it must have the same bits and not depend on the state."""
    rows, draws = [], []
    # Two seeds: noise that is drawn from torch's generator must differ between them.
    for seed in range(2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            start = torch.get_rng_state()
            rows.append(work.row(payload, ids, weights))
            draws.append((start, torch.get_rng_state()))
    (start, first), (_, second) = draws
    # Drawing is allowed if the model seeds the generator itself: then both calls leave it in one state.
    if not torch.equal(start, first) and not torch.equal(first, second):
        raise ValueError(f"the loss draws from torch's global generator (dropout?): {KEYED}")
    if rows[0].tobytes() != rows[1].tobytes():
        raise ValueError(
            f"computing the same row twice gives different results: {KEYED}, and forward must keep no state"
        )
    return rows[0]


def _check_additive(
    work: GradientWork, payload: Payload, ids: np.ndarray, weights: np.ndarray, row: np.ndarray
) -> None:
    """The row of both parts must be the weighted sum of the parts' rows, in its gradient and in its loss."""
    parts = np.split(ids, [PARTS[0]])
    rows = [w * work.row(payload, p, np.ones(len(p))).astype(float) for w, p in zip(WEIGHTS, parts, strict=True)]
    off = np.abs(row - sum(rows))
    # The sum of the parts' norms, not the norm of their sum: gradients that cancel leave no scale.
    scale = sum(np.linalg.norm(r[:-EXTRAS]) for r in rows)
    loss_scale = scale + sum(abs(r[-EXTRAS]) for r in rows)
    tolerance = TOLERANCE[row.dtype.name]
    for what, size, allowed in (
        ("gradients", np.linalg.norm(off[:-EXTRAS]), tolerance * scale),
        ("losses", off[-EXTRAS], tolerance * loss_scale),
    ):
        if not size <= allowed:
            raise ValueError(
                f"{what} of parts do not add up to those of the whole batch (off by {size:.1e}, allowed {allowed:.1e}): "
                "a sample's loss may depend on no other sample of its batch, and " + KEYED
            )


def _samples(count: int) -> np.ndarray:
    """Sample ids of both parts, evenly spaced over the data and repeated if it has too few."""
    need = sum(PARTS)
    # Spread over the data, so that padding, rare classes or missing values have a chance to be among them.
    return np.resize(np.unique(np.linspace(0, count - 1, need).astype(np.int64)), need)


def _state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of all parameters and buffers, also of buffers that state_dict leaves out."""
    return {name: t.detach().clone() for name, t in chain(model.named_parameters(), model.named_buffers())}


def _same(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    if one is None or other is None or one.shape != other.shape or one.dtype != other.dtype:
        return False
    # NaN equals NaN here: a mask of NaNs that is built alike is alike.
    return bool(((one == other) | ((one != one) & (other != other))).all())
