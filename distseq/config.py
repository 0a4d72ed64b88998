"""A job file: strict TOML. Every key is also a Python argument of the dataclass that it fills."""

import difflib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")
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
    prices: str = ""  # auto: KEY=DOLLARS,... (distseq.scheduling.estimate)

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


def load_config(path: Path) -> Config:
    """Read a job file; ValueError with one line for anything wrong in it."""
    try:
        with open(path, "rb") as file:
            return from_dict(tomllib.load(file))
    except OSError as error:
        raise ValueError(f"cannot read job file {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def from_dict(raw: Mapping[str, Any]) -> Config:
    """A configuration from the tables of a job file."""
    _known(raw, ["run", "pool", "scheduler", "checkpoint", "defaults", "learner"], "the job file")
    defaults, learners = raw.get("defaults", {}), raw.get("learner", [])
    _table(defaults, "[defaults]")
    _known(defaults, [f.name for f in fields(LearnerConfig)], "[defaults]")
    if not isinstance(learners, list):
        raise ValueError("learners are an array of tables: write [[learner]]")
    return Config(
        tuple(_fill(LearnerConfig, {**defaults, **_table(one, "[[learner]]")}, "[[learner]]") for one in learners),
        _fill(RunConfig, raw.get("run", {}), "[run]"),
        _fill(PoolConfig, raw.get("pool", {}), "[pool]"),
        _fill(SchedulerConfig, raw.get("scheduler", {}), "[scheduler]"),
        _fill(CheckpointConfig, raw.get("checkpoint", {}), "[checkpoint]"),
    )


def _table(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} must be a table: got {value!r}")
    return value


def _known(table: Mapping[str, Any], known: list[str], where: str) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
            raise ValueError(f"unknown key {key!r} in {where}; nearest: {near[0]}")


def _fill(kind: type[T], raw: Any, where: str) -> T:
    """A frozen dataclass from a table, every key known, present where it has no default, and of its type."""
    table = _table(raw, where)
    slots = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    _known(table, list(slots), where)
    for name, slot in slots.items():
        if name not in table and slot.default is MISSING and slot.default_factory is MISSING:
            raise ValueError(f"{where} needs {name!r}")
    types = get_type_hints(kind)
    for key, value in table.items():
        if isinstance(value, dict | list):
            _json(value, f"{key} in {where}")
    return kind(**{key: _typed(value, types[key], f"{key} in {where}") for key, value in table.items()})


def _json(value: dict[str, Any] | list[Any], where: str) -> None:
    """Arguments travel to the workers as JSON."""
    try:
        json.dumps(value)
    except TypeError as error:
        raise ValueError(f"{where} must hold text, numbers, true or false, arrays and tables: {error}") from None


def _typed(value: Any, wanted: Any, where: str) -> Any:
    allowed = get_args(wanted) if isinstance(wanted, UnionType) else (get_origin(wanted) or wanted,)
    if isinstance(value, int) and not isinstance(value, bool) and float in allowed and int not in allowed:
        return float(value)
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        names = " or ".join(t.__name__ for t in allowed if t is not type(None))
        raise ValueError(f"{where} must be {names}: got {value!r}")
    if isinstance(value, list):
        for item in value:
            _typed(item, get_args(wanted)[0], f"each of {where}")
    return value


def to_toml(config: Config) -> str:
    """The job file of a configuration, which reads back equal."""
    names = ("run", "pool", "scheduler", "checkpoint")
    tables: list[tuple[str, Any]] = [(f"[{name}]", getattr(config, name)) for name in names]
    tables += [("[[learner]]", learner) for learner in config.learner]
    return "\n".join(f"{head}\n" + "".join(_line(k, v) for k, v in asdict(one).items()) for head, one in tables)


def _line(key: str, value: Any) -> str:
    return "" if value is None else f"{key} = {_toml(value)}\n"


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, str):
        # TOML forbids the surrogate pairs and the raw DEL of JSON's strings.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value) if isinstance(value, float) else json.dumps(value)
