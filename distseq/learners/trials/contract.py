"""Checks, on a few samples and before any worker starts, that a model's gradients add up and can be coded.

The contract: a sample's loss depends only on that sample and the parameters. A model that breaks it is refused with a one-line
ValueError that gives the reason.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from distseq.cluster.pool import Payload
from distseq.engine.differences import TOLERANCE, is_rounding, nudged
from distseq.gradients.problem import EXTRAS, Problem, load_vector, losses_and_counts
from distseq.gradients.randomness import States, drawing, seed_all, states
from distseq.gradients.randomness import same as undrawn_between
from distseq.gradients.work import GradientWork
from distseq.learners.trials.trial import KEYED, check_unchanged, same, state

# Samples of the two parts that are compared with their union. A part of one sample shows a loss that calls squeeze(), and parts
# of unequal size one that divides by the size of its batch.
PARTS = (1, 3)
# Neither 1 nor of one sign, like the coefficients of dense codes.
WEIGHTS = (0.75, -1.5)


def check_contract(work: GradientWork, payload: Payload, built: nn.Module) -> np.ndarray:
    """Checks the learner of `payload` and returns a row (P + K + 2,) of it.

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
    before = state(problem.model)
    if payload.blocks:
        # Each sample is a block, so that parts of them draw what the whole draws.
        payload = replace(payload, ids=ids, blocks=len(ids))
    row = _check_repeatable(work, payload, ids, weights)
    check_unchanged(before, problem.model)
    if not row[len(payload.parameters) : -EXTRAS].any():
        raise ValueError("the loss depends on no parameter that requires a gradient: every gradient is None")
    if np.isfinite(row).all():
        _check_additive(work, payload, ids, weights, row)
        if payload.blocks and not payload.joint:
            _check_alone(problem, payload, ids)
    return row


def _check_no_running_statistics(model: nn.Module) -> None:
    for name, module in model.named_modules():
        kept = getattr(module, "running_mean", None) is not None
        # In evaluation mode it computes with the statistics that it has, and changes nothing: a frozen part of a model may.
        if (isinstance(module, nn.modules.batchnorm._BatchNorm) or kept) and (module.training or not kept):
            raise ValueError(
                f"{type(module).__name__} {name!r} couples the samples of a batch or keeps running statistics: "
                "use GroupNorm or LayerNorm"
            )


def _check_rebuild(model: nn.Module, built: nn.Module) -> None:
    """Everything but trained parameters, which are sent to every host, must be the same whenever the model is built."""
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    one, other = state(model), state(built)
    for name in (*one, *(other.keys() - one.keys())):
        if name not in trained and not same(one.get(name), other.get(name)):
            raise ValueError(
                f"building the model twice from one seed gives two different values of {name!r}: draw it with torch's "
                "random functions, which are seeded"
            )


def _check_repeatable(work: GradientWork, payload: Payload, ids: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Computes the row twice: it must have the same bits."""
    row, again = work.row(payload, ids, weights), work.row(payload, ids, weights)
    if row.tobytes() != again.tobytes():
        raise ValueError(
            f"computing the same row twice gives different results: {KEYED}, and forward must keep no state"
        )
    return row


def _check_additive(
    work: GradientWork, payload: Payload, ids: np.ndarray, weights: np.ndarray, row: np.ndarray
) -> None:
    """The row of both parts must be the weighted sum of the parts' rows, in its gradient, its loss and its count."""
    parts, rows = np.split(np.arange(len(ids)), [PARTS[0]]), []
    for weight, part in zip(WEIGHTS, parts, strict=True):
        blocks = {"blocks": part} if payload.blocks else {}
        rows.append(weight * work.row(payload, ids[part], np.ones(len(part)), **blocks).astype(float))
    numbers, added = len(payload.parameters), np.asarray(sum(rows))
    sizes = [numbers, len(row) - numbers - EXTRAS, 1, 1]
    # The sum of the parts' norms, not the norm of their sum: gradients that cancel leave no scale.
    scale = sum(float(np.linalg.norm(r[:numbers])) for r in rows)
    tolerance = TOLERANCE[row.dtype.name]
    for what, index, own in (
        ("gradients", 0, scale),
        ("losses", 2, scale + sum(abs(r[-EXTRAS]) for r in rows)),
        ("counts", 3, sum(abs(r[-1]) for r in rows)),
    ):
        piece = slice(sum(sizes[:index]), sum(sizes[: index + 1]))
        size, allowed = float(np.linalg.norm(added[piece] - row[piece])), tolerance * own
        if size <= allowed:
            continue
        # At the minimum of a loss gradients are rounding alone, which the size of the batch changes.
        other = replace(payload, job=payload.job - 1, parameters=nudged(payload.parameters))
        if not is_rounding(added, row, work.row(other, ids, weights), index, sizes):
            raise ValueError(
                f"{what} of parts do not add up to those of the whole batch (off by {size:.1e}, allowed {allowed:.1e}): "
                f"a sample's loss may depend on no other sample of its batch, {KEYED}, and hooks inside the model must be linear"
            )


def _check_alone(problem: Problem, payload: Payload, ids: np.ndarray) -> None:
    """The loss of a block's first sample must not change with the others of its block.

    Parts are whole blocks where random numbers are drawn, so that parts add up even if the samples of a block are coupled.
    """
    (own, drawn), (alone, again) = (_first(problem, payload, block) for block in (ids, np.full_like(ids, ids[0])))
    # Where the other samples decide how much is drawn, the first one meets other numbers, and nothing can be compared.
    if not (undrawn_between(drawn, again) and np.isfinite([own, alone]).all()):
        return
    for what, one, other in zip(("loss", "count"), own, alone, strict=True):
        off, allowed = abs(one - other), TOLERANCE[payload.parameters.dtype.name] * max(abs(one), abs(other))
        if off <= allowed:
            continue
        load_vector(problem.parameters, nudged(payload.parameters))
        nearby, _ = _first(problem, payload, ids)
        load_vector(problem.parameters, payload.parameters)
        if not is_rounding(alone, own, nearby, 0, [len(own)]):
            raise ValueError(
                f"the {what} of a sample changes with the other samples of its block (off by {off:.1e}, allowed {allowed:.1e}): "
                f"a sample's loss may depend on no other sample of its batch, and {KEYED}"
            )


def _first(problem: Problem, payload: Payload, block: np.ndarray) -> tuple[np.ndarray, States]:
    """The loss and the count (1 without counts) of a block's first sample, and the generators' states after the block."""
    device = problem.parameters[0].device
    with drawing(device):
        seed_all(payload.seed, device)
        # With gradients: a loss may hold derivatives of its own.
        losses_B, counts_B = losses_and_counts(problem, block, problem.source.batch(block))
        counts_B = torch.ones_like(losses_B) if counts_B is None else counts_B
        return np.array([float(losses_B[0].detach()), float(counts_B[0])]), states(device)


def _samples(count: int) -> np.ndarray:
    """Sample ids of both parts, evenly spaced over the data and repeated if it has too few."""
    need = sum(PARTS)
    # Spread over the data, so that padding, rare classes or missing values have a chance to be among them.
    return np.resize(np.unique(np.linspace(0, count - 1, need).astype(np.int64)), need)
