"""A job file: strict TOML. Every key is also a Python argument of the dataclass that it fills."""

import re
from dataclasses import dataclass, field
from typing import Any

LIVE = "live "  # before the class of a model that was an object in Python, where others have an import string


@dataclass(frozen=True)
class RunConfig:
    """[run]"""

    steps: int = 100  # of each learner that does not say otherwise
    seed: int = 0
    evaluate_every: int = 0  # steps of each learner; 0 = only at the end
    checks: int = 8  # jobs whose decoded gradient is compared with the full batch's
    dtype: str = "float32"  # of parameters and rows; float64 for exactness tests


@dataclass(frozen=True)
class PoolConfig:
    """[pool]"""

    kind: str = "ray"
    workers: int = 8
    hosts: int | None = None  # ray, local: actors or processes that share the workers; default one per CPU
    address: str = "local"  # ray: of a running cluster, "auto" to find it
    elastic: bool = False  # ray: a worker per actor, as many as the cluster has room for, at most `workers`
    cpus: float = 1.0  # ray: of each actor, as are the next two
    gpus: float = 0.0
    resources: dict[str, Any] = field(default_factory=dict)  # custom ones, by their names in the cluster
    delays: str = "none"  # a profile or a trace file: injected into real workers, or simulated
    unfinished: str = "serial"  # simulated: what an unfinished worker does
    compute: str = "decoded"  # simulated: "decoded" in one pass, or "rows", bit-identical to real workers
    device: str = "cpu"  # of each host: cpu, cuda, or auto, cuda where the host has one
    prefetch: bool = True  # ray, local: hosts read the next row's samples ahead, unless a model draws
    stack: int = 8  # ray, local: rows in one pass at most, of models built alike, where the bits are the same


@dataclass(frozen=True)
class SchedulerConfig:
    """[scheduler]"""

    kind: str = ""  # "auto", "rounds" or "pipeline"; by default rounds where a scheme is given, else auto
    scheme: str = ""  # of rounds
    closing: str = "safe"
    cutoff: float = 0.0  # safe: seconds
    mu: float = 1.0
    parts: int = 4  # pipeline: into how many a job is cut
    copies: int = 2  # pipeline: of a part that may be under way at once
    lanes: int = 1  # pipeline: static sets of workers
    burst: int = 1  # pipeline: parts that may share a message
    places: int = 0  # pipeline, auto: workers that have the data of a part, which cannot move; 0 = all
    objective: str = "seconds"  # auto: per job; or "worker-seconds", or "price"
    prices: str = ""  # auto: KEY=DOLLARS,... (distseq.scheduling.adaptive.cost)

    def __post_init__(self) -> None:
        if not self.kind:
            object.__setattr__(self, "kind", "rounds" if self.scheme else "auto")
        if self.kind == "rounds" and not self.scheme:
            object.__setattr__(self, "scheme", "gc:1")

    inexact: bool = False  # take a scheme that changes the gradients: ksync or async


@dataclass(frozen=True)
class CheckpointConfig:
    """[checkpoint]"""

    every: int = 50  # jobs of all learners together; 0 = only when the run ends or is stopped
    keep: int = 3  # the newest so many


@dataclass(frozen=True)
class LearnerConfig:
    """[[learner]], over the keys of [defaults]"""

    name: str
    model: str
    data: str
    batch: int
    model_args: dict[str, Any] = field(default_factory=dict)
    data_args: dict[str, Any] = field(default_factory=dict)
    evaluation: str | None = None  # data to evaluate on; a text's held-out windows where it says nothing
    evaluation_args: dict[str, Any] = field(default_factory=dict)
    optimizer: str = "adam"
    optimizer_args: dict[str, Any] = field(default_factory=dict)
    groups: list[dict[str, Any]] = field(default_factory=list)  # of parameters: match, and arguments of their own
    schedule: str | None = None  # of the learning rate: cosine, step or a class of torch.optim.lr_scheduler
    schedule_args: dict[str, Any] = field(default_factory=dict)
    clip: float | None = None
    steps: int | None = None  # jobs
    accumulate: int = 1  # jobs for each optimizer step
    ema: float | None = None  # decay of a moving average of the weights

    @property
    def live(self) -> bool:
        """Whether its model was an object in Python, which no file holds."""
        return self.model.startswith(LIVE)


@dataclass(frozen=True)
class Config:
    learner: tuple[LearnerConfig, ...]
    run: RunConfig = RunConfig()
    pool: PoolConfig = PoolConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()

    def __post_init__(self) -> None:
        names = [learner.name for learner in self.learner]
        if not names:
            raise ValueError("a job needs at least one [[learner]]")
        for name in names:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
                raise ValueError(f"a learner's name must be letters, digits, '.', '_' and '-': got {name!r}")
            if names.count(name) > 1:
                raise ValueError(f"two learners are named {name!r}")
        for one in self.learner:
            if one.ema is not None and f"{one.name}.ema" in names:
                raise ValueError(
                    f"{one.name!r} with ema and {one.name + '.ema'!r} would write the same file of weights"
                )
        for key, value, least in (
            ("run.steps", self.run.steps, 1),
            ("run.seed", self.run.seed, 0),
            ("run.evaluate_every", self.run.evaluate_every, 0),
            ("run.checks", self.run.checks, 0),
            ("pool.workers", self.pool.workers, 1),
            ("pool.stack", self.pool.stack, 1),
            ("scheduler.parts", self.scheduler.parts, 1),
            ("scheduler.copies", self.scheduler.copies, 1),
            ("scheduler.lanes", self.scheduler.lanes, 1),
            ("scheduler.burst", self.scheduler.burst, 1),
            ("scheduler.places", self.scheduler.places, 0),
            ("checkpoint.every", self.checkpoint.every, 0),
            ("checkpoint.keep", self.checkpoint.keep, 1),
            *((f"accumulate of learner {one.name}", one.accumulate, 1) for one in self.learner),
        ):
            if value < least:
                raise ValueError(f"{key} must be at least {least}: got {value}")
        for key, choice, known in (
            ("run.dtype", self.run.dtype, DTYPES),
            ("pool.kind", self.pool.kind, POOLS),
            ("pool.device", self.pool.device, DEVICES),
            ("scheduler.kind", self.scheduler.kind, SCHEDULERS),
        ):
            if choice not in known:
                raise ValueError(f"{key} must be one of {', '.join(known)}: got {choice!r}")
        if self.pool.elastic and (self.pool.kind != "ray" or self.pool.hosts is not None):
            raise ValueError(
                "pool.elastic is for pool.kind 'ray', without pool.hosts: as many actors as there is room for"
            )


DTYPES = ("float32", "float64")
POOLS = ("ray", "local", "simulated")
SCHEDULERS = ("auto", "rounds", "pipeline")
DEVICES = ("cpu", "cuda", "auto")
