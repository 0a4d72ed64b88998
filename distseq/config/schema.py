"""The tables and keys of a config file, as dataclasses whose fields are the keys."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from distseq.cluster.hosts.limits import READY_WITHIN, SILENT
from distseq.config.keys import NAME, key
from distseq.config.upload_url import upload_folder

# Prefix, before the class's name, of a model that was made in Python and has no import string. Run folders hold it.
LIVE = "live "

DTYPES = ("float32", "float64")
POOLS = ("ray", "local", "simulated")
SCHEDULERS = ("auto", "rounds", "pipeline")
DEVICES = ("cpu", "cuda", "auto")
# Beyond these a number is a typing error, whose tables would fill the memory before anything else was said.
WORKERS = 16_384
PARTS = 65_536
LONGEST = 1e7  # seconds, four months; what waits is told no longer ones
MOST_OF_A_HOST = 1_000_000  # CPUs or GPUs


@dataclass(frozen=True)
class RunConfig:
    """[run]: what holds for all learners."""

    steps: int = key(
        100,
        description="Training steps of each learner. The option also replaces the learners' own steps.",
        least=1,
        option="steps",
    )
    seed: int = key(0, description="Seed of initial weights, sampling and generated delays.", least=0, option="seed")
    evaluate_every: int = key(
        0,
        description="Steps between evaluations of a learner; 0 evaluates only at the end.",
        least=0,
        option="evaluate_every",
    )
    checks: int = key(
        8,
        description="Maximum number of jobs whose decoded gradient is compared with the gradient of the full batch, by the pool.",
        least=0,
        most=1_000_000,
        option="checks",
        shell=False,
    )
    dtype: str = key(
        "float32",
        description="Type of parameters and gradients; float64 is meant for tests of exactness.",
        values=DTYPES,
    )
    upload: str = key(
        "",
        description="Folder to which the run folder is copied when the run ends or stops: file:///FOLDER.",
        unset="no copy",
        option="upload",
        metavar="URL",
    )


@dataclass(frozen=True)
class PoolConfig:
    """[pool]: the workers."""

    kind: str = key(
        "ray",
        description="Workers are Ray actors, local processes, or simulated in virtual time.",
        values=POOLS,
        option="pool",
    )
    workers: int = key(8, description="Number of workers.", least=1, most=WORKERS, option="workers")
    hosts: int | None = key(
        None,
        description="Number of actors or processes that share the workers.",
        least=1,
        most=WORKERS,
        unset="one per CPU",
        option="hosts",
        pools=("ray", "local"),
    )
    address: str = key(
        "",
        description="Ray cluster to connect to: HOST:PORT, auto for the one that runs on this machine, or local to start one.",
        unset="RAY_ADDRESS, else the Ray of this process, else local",
        option="address",
        pools=("ray",),
    )
    token_file: str = key(
        "",
        description="File with the token of the Ray cluster.",
        unset="where Ray looks for it",
        option="token_file",
        metavar="FILE",
        pools=("ray",),
    )
    insecure: bool = key(
        False,
        description="Use a Ray cluster without authentication that other machines can reach. For trusted networks only.",
        option="insecure",
        pools=("ray",),
    )
    elastic: bool = key(
        False,
        description="Run one worker per actor, as many as the cluster has room for, up to the number of workers.",
        option="elastic",
        pools=("ray",),
    )
    cpus: float = key(
        1.0, description="CPUs that each actor reserves.", least=0, most=MOST_OF_A_HOST, option="cpus", pools=("ray",)
    )
    gpus: float = key(
        0.0, description="GPUs that each actor reserves.", least=0, most=MOST_OF_A_HOST, option="gpus", pools=("ray",)
    )
    resources: dict[str, Any] = key(
        dict, description="Custom resources that each actor reserves, by their names in the cluster.", pools=("ray",)
    )
    runtime_env: dict[str, Any] = key(
        dict,
        description="Ray runtime environment of the actors, such as env_vars, py_modules or pip.",
        pools=("ray",),
    )
    log_to_driver: bool = key(
        True,
        description="Show what workers print.",
        unset="yes, or what the Ray of this process does",
        option="log_to_driver",
        pools=("ray",),
    )
    ready_within: float = key(
        READY_WITHIN,
        description="Seconds to wait for room for the hosts, and for them to load their models.",
        least=1,
        most=LONGEST,
        option="ready_within",
        metavar="SECONDS",
        pools=("ray", "local"),
    )
    silent_after: float = key(
        SILENT,
        description="Seconds of silence after which a host counts as hung and is replaced. A healthy host speaks each second.",
        least=2,
        most=LONGEST,
        option="silent_after",
        metavar="SECONDS",
        pools=("ray", "local"),
    )
    delays: str = key(
        "none",
        description="Delays to inject into real workers or to simulate: a profile NAME[:base=SECONDS] or a trace file.",
        option="delays",
    )
    row_timeout: float | None = key(
        None,
        description="Seconds that a worker may compute one row; then its host is replaced and the row computed again. A row that "
        "takes too long three times is laid to its learner, which fails.",
        unset="20 times the slowest row of the learner so far, at least 30; 300 for its first",
        above=0,
        most=LONGEST,
        option="row_timeout",
        shell=False,
        pools=("ray", "local"),
    )
    unfinished: str = key(
        "serial",
        description="What happens to a worker's unfinished work when it is sent new work: it is lost, overlaps with the new "
        "work, or delays it (serial).",
        values=("lost", "overlap", "serial"),
        option="unfinished",
        pools=("simulated",),
    )
    compute: str = key(
        "decoded",
        description="Compute each batch in one pass (decoded), or row by row as real workers do, to the same bits (rows).",
        values=("decoded", "rows"),
        option="compute",
        shell=False,
        pools=("simulated",),
    )
    device: str = key(
        "cpu",
        description="Device that hosts compute on; auto means cuda on hosts that have it.",
        values=DEVICES,
        option="device",
    )
    prefetch: bool = key(
        True,
        description="Hosts read the samples of their next row ahead, except those of learners whose blocks are computed one by "
        "one.",
        pools=("ray", "local"),
    )
    shared_memory: str = key(
        "",
        description="Folder for the vectors that local processes share, such as /dev/shm or one on a disk.",
        unset="memory",
        option="shared_memory",
        shell=False,
        pools=("local",),
    )
    stack: int = key(
        8,
        description="Maximum number of rows computed in one pass, for models of one structure, if the bits stay the same.",
        least=1,
        most=WORKERS,
        pools=("ray", "local"),
    )


@dataclass(frozen=True)
class SchedulerConfig:
    """[scheduler]: how jobs are split among workers."""

    kind: str = key(
        "",
        description="How jobs are split among workers: auto chooses by the delays it observes, rounds follow a scheme, and in "
        "a pipeline idle workers pull parts of jobs.",
        values=SCHEDULERS,
        unset="rounds if a scheme is given, else auto",
        option="scheduler",
    )
    scheme: str = key(
        "",
        description="Scheme of the rounds: uncoded, gc:S[,q=Q], srsgc:B,W,LAM or msgc:B,W,LAM, each with [,code=fr|cyclic]; "
        "redispatch:T[,copies=C]; backup:PERCENT; not exact: ksync:K, async:A[,parts=P].",
        unset="gc:1",
        option="scheme",
        schedulers=("rounds",),
    )
    closing: str = key(
        "safe",
        description="Rule that ends a round: safe, once all open jobs can still be decoded on time, or mu, the papers' rule.",
        values=("safe", "mu"),
        option="closing",
        schedulers=("rounds",),
    )
    cutoff: float = key(
        0.0,
        description="Under closing rule safe: a round lasts at least this many seconds, unless all rows arrive.",
        option="cutoff",
        schedulers=("rounds",),
        closings=("safe",),
    )
    mu: float = key(
        1.0,
        description="Under closing rule mu: a round lasts at least 1 + MU times as long as its fastest worker takes, unless all "
        "rows arrive.",
        option="mu",
        schedulers=("rounds",),
        closings=("mu",),
    )
    parts: int = key(
        4,
        description="Number of parts of each job.",
        least=1,
        most=PARTS,
        option="parts",
        schedulers=("pipeline",),
    )
    copies: int = key(
        2,
        description="Maximum copies of one part in flight.",
        least=1,
        most=WORKERS,
        option="copies",
        schedulers=("pipeline",),
    )
    lanes: int = key(
        1,
        description="Number of fixed sets of workers; each job stays in one of them.",
        least=1,
        most=WORKERS,
        option="lanes",
        schedulers=("pipeline",),
    )
    burst: int = key(
        1,
        description="Maximum number of parts sent in one message.",
        least=1,
        most=PARTS,
        option="burst",
        schedulers=("pipeline",),
    )
    places: int = key(
        0,
        description="Number of workers that hold the data of each part, where data cannot move.",
        least=0,
        most=WORKERS,
        unset="all",
        option="places",
        schedulers=("pipeline", "auto"),
    )
    objective: str = key(
        "seconds",
        description="What to minimize per job.",
        values=("seconds", "worker-seconds", "price"),
        option="objective",
        schedulers=("auto",),
    )
    prices: str = key(
        "",
        description="Prices in dollars, for the objective price; keys: worker_second, held_second, message, gigabyte.",
        option="prices",
        metavar="KEY=DOLLARS,...",
        schedulers=("auto",),
        objectives=("price",),
    )
    inexact: bool = key(
        False,
        description="Allow a scheme that changes the gradients: ksync or async.",
        option="inexact",
        schedulers=("rounds",),
    )

    def __post_init__(self) -> None:
        if not self.kind:
            # A frozen dataclass can only be completed this way; everything that reads it then finds a kind and a scheme.
            object.__setattr__(self, "kind", "rounds" if self.scheme else "auto")
        if self.kind == "rounds" and not self.scheme:
            object.__setattr__(self, "scheme", "gc:1")


@dataclass(frozen=True)
class CheckpointConfig:
    """[checkpoint]: what is kept to resume from."""

    every: int | None = key(
        None,
        description="Jobs between checkpoints, of all learners together; 0 writes one only when the run ends or is stopped.",
        unset="50 jobs, and more where a checkpoint takes more than a twentieth of their time",
        least=0,
        option="checkpoint_every",
        shell=False,
    )
    keep: int = key(
        3, description="Number of newest checkpoints to keep.", least=1, option="checkpoint_keep", shell=False
    )


@dataclass(frozen=True)
class LearnerConfig:
    """[[learner]]: one model to train. Keys of [defaults] hold for every learner that does not set them itself."""

    name: str = key(
        description="Name of the learner and of its weights file: letters, digits, '.', '_' and '-'.",
        pattern=NAME,
    )
    model: str = key(
        description="Import string module:Name of a torch.nn.Module with per_sample_loss(batch) -> (B,), or -> (B,), (B,): "
        "sums and counts."
    )
    data: str = key(description="Data set to train on, such as csv:FILE, text:FILE or module:Class.")
    batch: int = key(description="Samples in the batch of each job.", least=1)
    model_args: dict[str, Any] = key(dict, description="Arguments of the model.")
    data_args: dict[str, Any] = key(dict, description="Arguments of the data set.")
    evaluation: str | None = key(
        None, description="Data set to evaluate on.", unset="the held-out part of a text; none for other data"
    )
    evaluation_args: dict[str, Any] = key(
        dict, description="Arguments of the data set to evaluate on.", beside="evaluation"
    )
    optimizer: str = key(
        "adam",
        description="muon (Adam for what is no matrix), or an optimizer of torch.optim by the name of its class, in any case.",
    )
    optimizer_args: dict[str, Any] = key(dict, description="Arguments of the optimizer, such as lr.")
    groups: list[dict[str, Any]] = key(
        list,
        description="Groups of parameters with optimizer arguments of their own: each has match, a regular expression "
        "searched in the parameters' names, and those arguments.",
    )
    schedule: str | None = key(
        None,
        description="Learning-rate schedule: cosine, step or a class of torch.optim.lr_scheduler.",
        unset="constant",
    )
    schedule_args: dict[str, Any] = key(dict, description="Arguments of the learning-rate schedule.", beside="schedule")
    clip: float | None = key(None, description="Maximum norm of the mean gradient.", above=0, unset="no clipping")
    steps: int | None = key(None, description="Training steps of this learner.", least=1, unset="the steps of [run]")
    accumulate: int = key(1, description="Jobs per optimizer step, whose gradients are averaged.", least=1)
    blocks: int | None = key(
        None,
        description="Blocks that a batch is cut into if the model or its data draw random numbers, each computed under its own "
        "seed; parts are whole blocks.",
        least=1,
        unset="at most 64 if all draws are dropout of tensors with the batch first, else at most 8",
    )
    ema: float | None = key(
        None,
        description="Decay of an exponential moving average of the weights, saved beside them.",
        above=0,
        below=1,
        unset="no average",
    )

    @property
    def live(self) -> bool:
        """Whether its model was made in Python, so that it cannot be imported."""
        return self.model.startswith(LIVE)


@dataclass(frozen=True)
class Config:
    """A whole config file, [defaults] filled in. ValueError, in one line, for what its tables or they together cannot be.

    Example: Config((LearnerConfig("a", "my_models:GRU", "csv:data.csv", batch=32),), pool=PoolConfig("simulated"))
    """

    learner: tuple[LearnerConfig, ...]
    run: RunConfig = RunConfig()
    pool: PoolConfig = PoolConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()

    def __post_init__(self) -> None:
        # pydantic takes longer to import than the rest of `distseq --help`.
        from distseq.config.validation import check, learner_place

        for name in TABLES:
            check(getattr(self, name), f"[{name}]")
        if self.run.upload:
            upload_folder(self.run.upload)
        for one in self.learner:
            check(one, learner_place(vars(one)))
        _check_names(self.learner)
        if self.pool.elastic and self.pool.hosts is not None:
            raise ValueError("elastic takes no hosts: it starts as many actors as there is room for")


def _check_names(learners: tuple[LearnerConfig, ...]) -> None:
    """ValueError for no learner at all, or two that would write the same file."""
    names = Counter(one.name for one in learners)
    if not names:
        raise ValueError("a config file needs at least one [[learner]]")
    for one in learners:
        if names[one.name] > 1:
            raise ValueError(f"two learners are named {one.name!r}")
        if one.ema is not None and f"{one.name}.ema" in names:
            raise ValueError(f"{one.name!r} with ema and {one.name + '.ema'!r} would write the same weights file")


TABLES: dict[str, type] = {
    "run": RunConfig,
    "pool": PoolConfig,
    "scheduler": SchedulerConfig,
    "checkpoint": CheckpointConfig,
}
