"""The trial of a temporal learner: the first two batches, in parts, against one backward pass in plain PyTorch."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from distseq.cluster.carried import Carried
from distseq.cluster.pool import Payload
from distseq.cluster.system.cpu_time import timed
from distseq.engine.differences import TOLERANCE, is_rounding, largest, nudged
from distseq.gradients.problem import load_vector, trained
from distseq.gradients.threads import one_thread
from distseq.gradients.work import GradientWork
from distseq.learners.learner import Learner
from distseq.learners.state_files import pack
from distseq.learners.trials.copies import copied_learner
from distseq.learners.trials.trying import Trial, named
from distseq.models.temporal import Draws, Prepared, State, TemporalModel, advance, part_loss, prepare

# Two parts that are not of one size, with weights that are neither 1 nor of one sign, as dense codes have.
SHARE, WEIGHTS = 0.3, (0.75, -1.5)
BATCHES = 2  # the first one reads empty memory, whose updates have no gradient


def try_temporal(work: GradientWork, learner: Learner, m: int) -> Trial:
    """Tries the m-th learner of `work`, on a copy. ValueError naming the learner for whatever is wrong with it."""
    samples, spent = timed(partial(named, learner, partial(_run, work, learner, m)))
    problem = work.problem(m)
    if problem.memory is not None:
        problem.memory.forget()
    return Trial(learner.name, samples, spent, counts=True)


def _run(work: GradientWork, learner: Learner, m: int) -> int:
    copy, samples = copied_learner(learner), 0
    assert isinstance(copy.model, TemporalModel)
    assert copy.memory is not None
    copy.counts = True
    memory = work.problem(m).memory
    assert memory is not None
    state = copy.model.state(memory.graph)
    for step in range(min(BATCHES, copy.steps)):
        o = copy.open(step)
        batch = copy.memory.epochs.slice_of(step)
        if batch.start == 0:
            state = copy.model.state(memory.graph)
        payload = replace(o.payload(-1, m, step, "uncoded", 1), version=-1 - step)
        total = _rows(work, payload)
        draws = Draws(o.seed, copy.memory.epochs.epoch_of(step))
        prepared = prepare(copy.model, memory.graph, state, batch, draws)
        _compare(copy, o.parameters, partial(_plain, copy, prepared, o.ids), total / len(o.ids))
        state = advance(copy.model, memory.graph, state, batch, prepared)
        _check_state(o.carried, copy, step, state)
        # Until the optimizer steps once; to the memory that is one job.
        for _ in range(copy.accumulate):
            copy.apply(total)
        copy.memory.done = step + 1
        samples += len(o.ids)
    # Now, because an optimizer's state has nothing in it before its first step.
    pack(copy.snapshot())
    return samples


def _rows(work: GradientWork, payload: Payload) -> np.ndarray:
    """The row of the whole batch, from weighted rows of two parts."""
    ids, weights = payload.ids, np.array(WEIGHTS)
    cut = max(1, int(SHARE * len(ids))) if len(ids) > 1 else 1
    parts = [(ids[:cut], weights[0]), (ids[cut:], weights[1])]
    return np.asarray(
        sum(work.row(payload, part, np.full(len(part), weight)).astype(np.float64) / weight for part, weight in parts)
    )


def _plain(copy: Learner, prepared: Prepared, ids: np.ndarray) -> np.ndarray:
    """(P,) the gradient of one backward pass under the model's parameters."""
    assert isinstance(copy.model, TemporalModel)
    copy.model.zero_grad()
    with one_thread():
        part_loss(copy.model, prepared, ids).backward()  # type: ignore[no-untyped-call]
    flat = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained(copy.model)]
    return torch.cat([each.flatten() for each in flat]).double().numpy()


def _compare(copy: Learner, vector: np.ndarray, plain: Callable[[], np.ndarray], mean: np.ndarray) -> None:
    """The decoded mean (P + ...,) against the plain gradient under parameters `vector` (P,), which the model has."""
    parameters, expected = trained(copy.model), plain()
    names = [name for name, p in copy.model.named_parameters() if p.requires_grad]
    sizes = [p.numel() for p in parameters]
    found = largest(mean[: len(expected)], expected, sizes)
    allowed = TOLERANCE[str(parameters[0].dtype).rpartition(".")[2]]
    if found.relative <= allowed:
        return
    # Empty memory tells no event from another: the gradients of true and random destinations cancel, and rounding is left.
    load_vector(parameters, nudged(vector))
    nearby = plain()
    load_vector(parameters, vector)
    if not is_rounding(mean, expected, nearby, found.parameter, sizes):
        raise ValueError(
            f"the gradient of {names[found.parameter]!r}, decoded from parts of a batch, differs from that of one backward pass "
            f"by {found.relative:.1e} of its size (allowed {allowed:.0e})"
        )


def _check_state(carried: Carried | None, copy: Learner, step: int, state: State) -> None:
    """The learner's own replica must come to the state that plain calls come to."""
    assert copy.memory is not None
    copy.memory.prepare_next()
    if copy.memory.evaluated(step + 1).digest != state.digest():
        raise ValueError(f"the state of memory after step {step} is not that of a plain advance")
