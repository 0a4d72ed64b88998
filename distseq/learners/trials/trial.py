"""Compares what workers would send with plain PyTorch: the gradient decoded from rows, with `.backward()` of the mean loss."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain

import numpy as np
import torch
from torch import nn

from distseq.cluster.pool import Payload
from distseq.cluster.work import RowRequest, compute
from distseq.coding.layout import block_edges, block_numbers
from distseq.engine.differences import TOLERANCE, Difference, is_rounding, largest, nudged
from distseq.gradients.problem import EXTRAS, Problem, losses, losses_and_counts
from distseq.gradients.randomness import block_seeds, drawing, seed_all
from distseq.gradients.side_effects import Watched, changed
from distseq.gradients.work import GradientWork

CPU = torch.device("cpu")  # where trials compute
# Weights of the two parts of the first row, and of the three rows in the sum: 4/3 (3/4 a - 3/2 b) + 3 b + c = a + b + c. The
# first row mixes parts with weights of both signs, as dense codes do; the others are plain sums, as in uncoded rounds and in
# pipelines.
WEIGHTS = (0.75, -1.5)
DECODE = (4 / 3, 3.0, 1.0)
KEYED = "random numbers must come from the global generators of torch, numpy or Python"
KEPT = "forward may keep nothing from one call to the next, and hooks inside the model must be linear"
ALONE = f"a sample's loss may depend on no other sample of its batch nor on the batch's size, {KEYED}"


def compare(work: GradientWork, payload: Payload, reference: Problem) -> tuple[np.ndarray, list[str]]:
    """The decoded sum (P + K + 2,) float64 of a job, and the names of the parameters that its loss does not reach.

    payload: of the parameters that `reference`, a copy of the learner's own model, has now. ValueError naming the parameter
    whose gradient differs from that of plain PyTorch, or what the passes have changed. If the payload has blocks, plain PyTorch
    is a loop that seeds each of them.
    """
    ids = payload.ids
    total, scales = decoded(work, payload, [p.numel() for p in reference.parameters])
    before, watched = state(reference.model), Watched(reference.model)
    marks = watched.marks()
    gradient, mean, counts = _backward(reference, payload)
    watched.check(marks)
    check_unchanged(before, reference.model)
    count = float(total[-1]) if counts else len(ids)
    # Left for the optimizer's step, which says more clearly that it is not finite. Without a count there is nothing to compare.
    if count > 0 and np.isfinite(gradient).all() and np.isfinite(total).all():
        scales = [scale / count for scale in scales]
        found = total[: len(gradient)] / count
        _check_gradient(partial(_backward, reference, payload), found, gradient, scales, reference)
        _check_loss(float(total[-EXTRAS]) / count, mean, float(np.linalg.norm(scales)), payload.parameters.dtype)
    names = [name for name, p in reference.model.named_parameters() if p.requires_grad]
    reached = total[len(gradient) : -EXTRAS]
    return total, [name for name, some in zip(names, reached, strict=True) if not some]


def decoded(work: GradientWork, payload: Payload, sizes: Sequence[int]) -> tuple[np.ndarray, list[float]]:
    """The sum over samples that three rows decode to, and for each parameter the size of the terms that it is made of."""
    ids, blocks = payload.ids, payload.blocks or len(payload.ids)
    edges, numbers = block_edges(len(ids), blocks), block_numbers(len(ids), blocks)
    # Parts are whole blocks.
    quarter, half = edges[blocks // 4], edges[blocks // 2]
    mixed = np.repeat(WEIGHTS, [quarter, half - quarter])

    def row(begin: int, end: int, weights: np.ndarray) -> np.ndarray:
        own = numbers[begin:end] if payload.blocks else None
        return compute(work, RowRequest(payload, ids[begin:end], weights, blocks=own))

    rows = [
        row(0, half, mixed),
        row(quarter, half, np.ones(half - quarter)),
        row(half, len(ids), np.ones(len(ids) - half)),
    ]
    terms = [weight * row.astype(np.float64) for weight, row in zip(DECODE, rows, strict=True)]
    ends = np.cumsum(sizes)
    pieces = zip(*(np.split(term[: ends[-1]], ends[:-1]) for term in terms), strict=True)
    scales = [sum(float(np.linalg.norm(piece)) for piece in own) for own in pieces]
    return sum(terms, start=np.zeros(len(terms[0]))), scales


def reaches(reference: Problem) -> bool:
    """Whether the loss of some samples reaches a parameter of this very model."""
    ids = np.arange(min(2, len(reference.data)))
    total = losses(reference, ids, reference.source.batch(ids)).sum()
    if total.requires_grad:
        total.backward()  # type: ignore[no-untyped-call]
    found = any(p.grad is not None for p in reference.parameters)
    reference.model.zero_grad()
    return found


def _backward(reference: Problem, payload: Payload) -> tuple[np.ndarray, float, bool]:
    """(P,) float64 gradient of the mean loss by plain `.backward()`, zeros where it is None; the mean loss; if it has counts.

    The mean is over samples or, if the loss returns counts, over what they count.
    """
    reference.model.zero_grad()
    ids, total, count, counted = payload.ids, 0.0, 0.0, False
    with drawing(CPU):
        # Seeded where the batch is not cut too, which changes nothing if nothing is drawn.
        blocks = max(1, payload.blocks)
        for block, seed in zip(
            np.array_split(ids, blocks), block_seeds(payload.seed, payload.step, blocks), strict=True
        ):
            seed_all(seed, CPU)
            losses_B, counts_B = losses_and_counts(reference, block, reference.source.batch(block))
            # Divided before the backward pass, because hooks inside the model see what a mean gives them.
            own = losses_B.sum() / len(ids)
            if own.requires_grad:
                own.backward()  # type: ignore[no-untyped-call]
            total += float(own.detach())
            count += float(len(block) if counts_B is None else counts_B.sum())
            counted = counts_B is not None
    pieces = [torch.zeros(p.numel()) if p.grad is None else p.grad.detach().flatten() for p in reference.parameters]
    flat: np.ndarray = torch.cat([piece.double() for piece in pieces]).numpy()
    reference.model.zero_grad()
    scale = len(ids) / (count or 1.0)
    return scale * flat, scale * total, counted


def _check_gradient(
    again: Callable[[], tuple[np.ndarray, float, bool]],
    found: np.ndarray,
    expected: np.ndarray,
    scales: Sequence[float],
    reference: Problem,
) -> None:
    """`again` computes `expected` anew, at other parameters of the reference."""
    sizes, dtype = [p.numel() for p in reference.parameters], reference.parameters[0].dtype
    allowed = TOLERANCE[str(dtype).rpartition(".")[2]]
    worst = largest(found, expected, sizes, scales)
    if worst.relative <= allowed or _rounds(again, found, expected, worst, reference):
        return
    name = [name for name, p in reference.model.named_parameters() if p.requires_grad][worst.parameter]
    raise ValueError(
        f"the gradient of {name!r}, decoded from parts of a batch, differs from .backward() of the mean loss by "
        f"{worst.relative:.1e} of its size (allowed {allowed:.0e}): {ALONE}, {KEPT}"
    )


def _rounds(
    again: Callable[[], tuple[np.ndarray, float, bool]],
    found: np.ndarray,
    expected: np.ndarray,
    worst: Difference,
    reference: Problem,
) -> bool:
    """Whether rounding explains a difference: changing parameters in their last digits changes the gradient as much."""
    sizes = [p.numel() for p in reference.parameters]
    kept = [p.detach().clone() for p in reference.parameters]
    vector = torch.cat([p.detach().flatten() for p in reference.parameters]).numpy()
    pieces = torch.split(torch.from_numpy(nudged(vector)), sizes)
    with torch.no_grad():
        for p, piece in zip(reference.parameters, pieces, strict=True):
            p.copy_(piece.view_as(p))
    other, *_ = again()
    with torch.no_grad():
        for p, value in zip(reference.parameters, kept, strict=True):
            p.copy_(value)
    return is_rounding(found, expected, other, worst.parameter, sizes)


def _check_loss(found: float, expected: float, scale: float, dtype: np.dtype) -> None:
    allowed = TOLERANCE[dtype.name] * (scale + abs(expected))
    if not abs(found - expected) <= allowed:
        raise ValueError(
            f"the mean loss, decoded from parts of a batch, is {found:.6g}, but {expected:.6g} for the whole batch: {ALONE}"
        )


def check_unchanged(before: dict[str, torch.Tensor], model: nn.Module) -> None:
    """ValueError naming a parameter or buffer that is not as it was, whichever way it was written."""
    after = state(model)
    for name in (*before, *(after.keys() - before.keys())):
        if not same(before.get(name), after.get(name)):
            raise changed("parameter" if name in dict(model.named_parameters()) else "buffer", name)


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of all parameters and buffers, also of buffers that state_dict leaves out."""
    return {name: t.detach().clone() for name, t in chain(model.named_parameters(), model.named_buffers())}


def same(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    """Whether two tensors are equal; NaN equals NaN here."""
    if one is None or other is None or one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(((one == other) | ((one != one) & (other != other))).all())
