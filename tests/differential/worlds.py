"""Worlds, drawn by Hypothesis: what one learner is made of, and how a run of a few of them is scheduled."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from torch import nn
from torch.utils.data import TensorDataset

import distseq
from tests.differential.data import DTYPES, tensors
from tests.differential.models import BLOCKS, DRAWING, LOSSES, REFUSED, Net, Written

WRITTEN = "tests.differential.models"

# With epsilons far above the rounding of a gradient: a step must not be a matter of the last digit.
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "SGD": {"lr": 0.05},
    "SGD momentum": {"lr": 0.03, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    "Adam": {"lr": 0.01, "eps": 1e-3, "amsgrad": True},
    "AdamW": {"lr": 0.01, "eps": 1e-3, "weight_decay": 0.1},
    "NAdam": {"lr": 0.01, "eps": 1e-3},
    "RAdam": {"lr": 0.01, "eps": 1e-3},
    "Adamax": {"lr": 0.01, "eps": 1e-3},
    "Adagrad": {"lr": 0.02, "eps": 1e-3},
    "Adadelta": {"lr": 0.5, "eps": 1e-3},
    "RMSprop": {"lr": 0.005, "eps": 1e-2, "momentum": 0.5, "centered": True},
    "ASGD": {"lr": 0.05},
    # In bfloat16 a step is a matter of the last digit (tests/distseq/learners/test_muon.py).
    "Muon": {"lr": 0.01, "eps": 1e-3, "full_precision": True, "adam_lr": 0.01, "adam_eps": 1e-3},
}
SCHEDULES: dict[str, dict[str, Any]] = {
    "StepLR": {"step_size": 2, "gamma": 0.5},
    "ExponentialLR": {"gamma": 0.8},
    "CosineAnnealingLR": {"T_max": 5},
    "LinearLR": {"total_iters": 3},
    "ReduceLROnPlateau": {"patience": 0, "factor": 0.5, "threshold": 0.1},
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.05, "step_size_up": 2, "cycle_momentum": False},
}


@dataclass(frozen=True)
class World:
    """One learner."""

    seed: int
    dtype: str
    blocks: tuple[str, ...]
    entry: str
    loss: str
    samples: int
    length: int
    batch: int
    steps: int
    optimizer: str
    groups: bool
    schedule: str | None
    clip: float | None
    accumulate: int
    ema: float | None
    odd: bool  # data with zeros, large and equal values, and samples without a valid step
    cut: int | None  # blocks of the batch, for a learner that draws
    evaluated: bool
    written: bool = False  # as a config file names it, not made in Python

    @property
    def draws(self) -> bool:
        return any(name in DRAWING for name in self.blocks)

    @property
    def refusable(self) -> bool:
        """Whether something of it cannot be trained by parts."""
        if any(name in REFUSED for name in self.blocks) or self.entry in ("max_norm", "sparse"):
            return True
        # torch has no derivatives of a gradient through this.
        return self.loss == "penalized" and "reentrant" in self.blocks

    @property
    def may_be_refused(self) -> bool:
        """Whether it may have no second derivative: most kernels of ours, attention in some of torch's versions and sizes."""
        kernels = any(name.startswith("our_") for name in self.blocks)
        return self.loss == "penalized" and (kernels or not {"torch_attention", "transformer"}.isdisjoint(self.blocks))

    def data(self, evaluation: bool = False) -> TensorDataset:
        """Samples to train on, or others to evaluate on."""
        return tensors(**self.drawn, evaluation=evaluation)

    @property
    def drawn(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("samples", "length", "dtype", "odd", "entry")}

    def model(self) -> nn.Module:
        # In a state of its own: Hypothesis and the tests beside it draw as well.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            net = Written(self.blocks, self.entry, self.loss) if self.written else Net(self.blocks, self.entry)
            # Not `.to`, which makes complex tables real.
            return net._apply(self._cast)  # type: ignore[no-any-return]

    def _cast(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(DTYPES[self.dtype]) if tensor.is_floating_point() else tensor

    def learner(self, name: str) -> distseq.Learner:
        model = self.model()
        own = list(model.parameters())
        parameters: Any = own
        if self.groups:
            parameters = [{"params": own[:2], "lr": 0.02}, {"params": own[2:]}]
        optimizer: Any
        if self.optimizer == "Muon":
            groups = [{"match": "^entry", "lr": 0.02, "adam_lr": 0.02}] if self.groups else []
            optimizer = distseq.Muon(model, groups=groups, **OPTIMIZERS["Muon"])
        else:
            kind = getattr(torch.optim, self.optimizer.split()[0])
            optimizer = kind(parameters, **OPTIMIZERS[self.optimizer])
        schedule: Any = None
        if self.schedule is not None:
            schedule = getattr(torch.optim.lr_scheduler, self.schedule)(optimizer, **SCHEDULES[self.schedule])
        more = {} if self.cut is None else {"blocks": self.cut}
        return distseq.Learner(
            name,
            model,
            optimizer,
            data=self.data(),
            batch=self.batch,
            steps=self.steps,
            loss=LOSSES[self.loss],
            seed=self.seed,
            clip=self.clip,
            schedule=schedule,
            accumulate=self.accumulate,
            ema=self.ema,
            evaluation=self.data(evaluation=True) if self.evaluated else None,
            **more,  # type: ignore[arg-type]
        )

    def table(self, name: str) -> dict[str, Any]:
        """The learner as a table of a config file."""
        found = {
            "name": name,
            "model": f"{WRITTEN}:Written",
            "model_args": {"blocks": list(self.blocks), "entry": self.entry, "loss": self.loss},
            "data": "tests.differential.data:Samples",
            "data_args": self.drawn,
            "batch": self.batch,
            "steps": self.steps,
            "optimizer": self.optimizer.split()[0],
            "optimizer_args": OPTIMIZERS[self.optimizer],
            "schedule": self.schedule,
            "schedule_args": {} if self.schedule is None else SCHEDULES[self.schedule],
            "clip": self.clip,
            "accumulate": self.accumulate,
            "ema": self.ema,
            "evaluation": "tests.differential.data:Samples" if self.evaluated else None,
            "evaluation_args": {**self.drawn, "evaluation": True} if self.evaluated else {},
            "blocks": self.cut,
        }
        return {key: value for key, value in found.items() if value is not None}


@dataclass(frozen=True)
class Run:
    """A few worlds of one dtype, and how they are trained together."""

    worlds: tuple[World, ...]
    workers: int
    options: tuple[tuple[str, Any], ...]
    written: bool  # as a config file
    stop: int | None  # jobs after which it is stopped, to be resumed

    @property
    def parts(self) -> int:
        """More parts than this the run's schemes do not cut."""
        return 2 * self.workers


@st.composite
def worlds(draw: DrawFn, dtype: str, *, parts: int, draws: bool | None = None, counts: bool | None = None) -> World:
    """A learner of that dtype; `draws`, `counts`: with or without, None leaves it open. parts: the most parts of a job."""
    drawing = draw(st.booleans()) if draws is None else draws
    names = [draw(st.sampled_from(sorted(DRAWING)))] if drawing else []
    names += draw(st.lists(st.sampled_from(sorted(BLOCKS)), min_size=0 if names else 1, max_size=3))
    # One in thirty with what must be refused: mostly what is said is tried, not what is not done.
    if draw(st.integers(0, 29)) == 7:
        names.append(draw(st.sampled_from(sorted(REFUSED))))
    names = list(draw(st.permutations(names)))
    losses = ["squared"] if drawing else ["squared", "squared", "squared", "penalized"]
    if counts is not False:
        losses = ["counted"] if counts else [*losses, "counted"]
    loss = draw(st.sampled_from(losses))
    accumulate = draw(st.sampled_from([1, 1, 2]))
    batch = draw(st.integers(parts if drawing else 1, 17 + parts))
    entries = ["linear", "linear", "embedding", "padded"]
    if draw(st.integers(0, 29)) == 7:
        entries += ["max_norm", "sparse"]
    schedule = draw(st.sampled_from([None, None, *sorted(SCHEDULES)]))
    return World(
        seed=draw(st.integers(0, 2**20)),
        dtype=dtype,
        blocks=tuple(names),
        entry=draw(st.sampled_from(entries)) if loss != "penalized" else "linear",
        loss=loss,
        samples=draw(st.sampled_from([1, 2, 5, 33, 64])),
        length=draw(st.sampled_from([1, 2, 5])),
        batch=batch,
        steps=accumulate * draw(st.integers(1, 5 // accumulate)),
        optimizer=draw(st.sampled_from(sorted(OPTIMIZERS))),
        groups=draw(st.booleans()),
        schedule=schedule,
        clip=draw(st.sampled_from([None, 0.05, 10.0])),
        accumulate=accumulate,
        ema=draw(st.sampled_from([None, None, 0.9])),
        odd=draw(st.booleans()),
        # By default there may be as few as 8 blocks.
        cut=draw(st.sampled_from([None, batch] if parts <= 8 else [batch])) if drawing else None,
        evaluated=schedule == "ReduceLROnPlateau" or draw(st.booleans()),
    )


@st.composite
def runs(
    draw: DrawFn,
    *,
    stops: bool = False,
    draws: bool | None = None,
    counts: bool | None = None,
    learners: tuple[int, int] = (1, 3),
) -> Run:
    """Up to three learners, or as many as said, under any exact scheme or scheduler, on a simulated pool with any delays."""
    dtype = draw(st.sampled_from(sorted(DTYPES)))
    workers = draw(st.integers(1, 7))
    own = tuple(
        draw(worlds(dtype, parts=2 * workers, draws=draws, counts=counts)) for _ in range(draw(st.integers(*learners)))
    )
    options: dict[str, Any] = {"workers": workers}
    kind = draw(st.sampled_from(["rounds", "rounds", "pipeline", "auto"]))
    if kind == "rounds":
        options["scheme"] = draw(st.sampled_from(schemes(workers, len(own))))
    elif kind == "pipeline":
        copies = draw(st.integers(1, workers))
        options |= {"scheduler": "pipeline", "parts": draw(st.integers(1, 2 * workers)), "copies": copies}
    else:
        options["scheduler"] = "auto"
    options["delays"] = draw(st.sampled_from(["none", "bursts", "heavy-tail", "one-slow", "half-slow", "spikes"]))
    options["unfinished"] = draw(st.sampled_from(["lost", "overlap", "serial"]))
    options["compute"] = draw(st.sampled_from(["rows", "decoded"]))
    if any(world.evaluated for world in own):
        options["evaluate_every"] = draw(st.integers(1, 3))
    jobs, written = sum(world.steps for world in own), draw(st.booleans())
    if written:
        options["seed"] = draw(st.integers(0, 99))
        # A hook is registered by a program; optimizer groups are written as patterns.
        own = tuple(
            replace(world, written=True, groups=False, seed=seed_of(options["seed"], m), blocks=without_hooks(world))
            for m, world in enumerate(own)
        )
    else:
        # torch itself refuses to make this one, before distseq sees it; in a configuration it is drawn.
        own = tuple(
            replace(world, optimizer="SGD") if "lazy" in world.blocks and world.optimizer == "Adagrad" else world
            for world in own
        )
    return Run(own, workers, tuple(options.items()), written, draw(st.integers(1, jobs)) if stops else None)


def seed_of(seed: int, m: int) -> int:
    """The seed of the m-th learner of a config file."""
    return int(np.random.SeedSequence([seed, m]).generate_state(1)[0])


def without_hooks(world: World) -> tuple[str, ...]:
    return tuple("linear" if name == "hook" else name for name in world.blocks)


def schemes(n: int, models: int) -> list[str]:
    """Specifications that n workers and so many learners can have, with codes that are precise in float32."""
    found = ["uncoded", *(f"gc:{s}" for s in range(1, n)), *(f"gc:{s},code=cyclic" for s in (1, 2) if s < n)]
    found += [f"gc:{s},q=2" for s in (1,) if n >= 4]
    found += [f"backup:{p}" for p in (20, 50) if -(-p * n // 100) < n]
    if models > 1:
        found += ["redispatch:1,copies=1"]
        found += [f"srsgc:1,2,{lam}" for lam in (2,) if n >= 3]
        found += [f"msgc:1,2,{lam}" for lam in (1, 2) if lam < n]
    if models > 2:
        found += [f"msgc:1,3,{lam}" for lam in (1, 2) if lam < n]
    return found


def ids(world: World, step: int) -> np.ndarray:
    """(batch,) sample ids of a step, as documented: with replacement, from (seed, step)."""
    draws = np.random.default_rng(np.random.SeedSequence([world.seed, step]))
    return draws.integers(0, world.samples, world.batch)
