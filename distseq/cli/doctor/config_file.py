"""Checks of a config file: everything that `distseq train` needs to run it."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from distseq.cli.doctor.cluster import nodes
from distseq.cli.doctor.findings import Check, Finding, Subject, UnknownError, count, ok, warning
from distseq.cluster.ray.resources import HostResources
from distseq.cluster.system.cpus import usable_cpus
from distseq.coding.schemes.scheme import Scheme
from distseq.config.schema import Config
from distseq.config.toml_file import load_config
from distseq.scheduling.asynchronous import marked
from distseq.scheduling.pipeline import Pipeline

if TYPE_CHECKING:
    from distseq.config.strategy import Strategy

MiB = 1 << 20
# Memory of a host without models: a Ray actor that has imported torch takes 188 to 203 MB.
HOST_MIB = 200
# Vectors of model size at the master: parameters, their gradient, and the two moments of Adam, the default optimizer.
COPIES = 4


def config(subject: Subject) -> Config:
    """The configuration, read once. UnknownError without a config file."""
    path = subject.config
    if path is None:
        raise UnknownError("no config file")
    return subject.once("config", lambda: load_config(path))


def scheduled(subject: Subject) -> "Strategy":
    """The strategy of the config file, built and checked once."""
    # Its schedulers need numba, without which the other checks still find something.
    from distseq.config.check import strategy_of

    settings = config(subject)

    def made() -> "Strategy":
        own = strategy_of(settings)
        own.check(settings.run.dtype, elastic=settings.pool.elastic)
        return own

    return subject.once("strategy", made)


def parses(subject: Subject) -> list[Finding]:
    settings = config(subject)
    return ok(
        "config file",
        f"{subject.config}: {count(len(settings.learner), 'learner')}, "
        f"{count(settings.pool.workers, 'worker')}, pool {settings.pool.kind}",
    )


def holds(subject: Subject) -> list[Finding]:
    """What every command checks, once the scheme is right."""
    from distseq.config.check import check

    scheduled(subject)
    check(config(subject))
    return []


def scheme_holds(subject: Subject) -> list[Finding]:
    own = scheduled(subject)
    found, pipeline = own.scheme, own.pipeline
    if pipeline is not None:
        parts = f"{count(pipeline.parts, 'part')} per job, copies of a part: at most {pipeline.copies}"
        return ok("scheme", f"{own.heading} for {count(found.n, 'worker')}: {parts}")
    return ok(
        "scheme",
        f"{marked(found.spec, found.exact)} for {found.n} workers: load {float(found.load):.3g}, delay {found.delay}",
    )


def models(subject: Subject) -> list[Finding]:
    from distseq.gradients.problem import model_factory

    named = {one.model: one.name for one in reversed(config(subject).learner)}
    for model, learner in named.items():
        try:
            model_factory(model)
        except ValueError as error:
            raise ValueError(f"learner {learner}: {error}") from error
    return ok("models", f"{', '.join(sorted(named))} can be imported")


def data(subject: Subject) -> Iterator[Finding]:
    from distseq.gradients.data import open_data

    opened: dict[str, int] = {}
    for one in config(subject).learner:
        key = f"{one.data} {one.data_args}"
        # Learners often share a data set: it is opened, and reported, once.
        if key not in opened:
            opened[key] = len(open_data(one.data, one.data_args))
            yield Finding("data", "ok", f"{one.data}: {opened[key]} samples")


def contract(subject: Subject) -> list[Finding]:
    parameters = _parameters(subject)
    return ok("learners", f"one step of each was tried and is exact; {count(sum(parameters), 'parameter')} in all")


def _parameters(subject: Subject) -> list[int]:
    """Trained parameters of each learner, once all have passed the contract."""
    from distseq.learners.from_config import build_fleet

    settings = config(subject)
    fleet = subject.once("fleet", lambda: build_fleet(settings))
    return [learner.open(0).parameters.size for learner in fleet.learners]


def room(subject: Subject) -> list[Finding]:
    """Checks that the hosts fit: processes, one per CPU, or actors with the resources of the config file."""
    pool = config(subject).pool
    if pool.kind == "simulated":
        return ok("workers", f"{pool.workers} workers in virtual time")
    fit, where = _fit(subject)
    if pool.kind == "ray" and (pool.hosts or 1) > fit:
        return [Finding("workers", "error", f"there is no room for {count(pool.hosts or 1, 'host')}: {where}")]
    hosts = min(pool.workers, fit if pool.hosts is None else pool.hosts)
    if hosts < pool.workers:
        return warning(
            "workers",
            f"{pool.workers} workers share {count(hosts, 'host')} ({where}): a host that fails delays several workers at once",
        )
    return ok("workers", f"{count(pool.workers, 'worker')}, each on a host of its own ({where})")


def _fit(subject: Subject) -> tuple[int, str]:
    """The number of hosts that there is room for, and a phrase that says where."""
    pool, cpus = config(subject).pool, usable_cpus()
    if pool.kind != "ray":
        return cpus, f"this machine has {count(cpus, 'CPU')}"
    needs = HostResources(pool.cpus, pool.gpus, pool.resources)
    found = [{"CPU": cpus}] if subject.address is None else [node["resources"] for node in nodes(subject)["nodes"]]
    fit = sum(needs.room(node) for node in found)
    return fit, f"{'this machine' if subject.address is None else 'the cluster'} has room for {fit} of {needs}"


def memory(subject: Subject) -> list[Finding]:
    """Compares an upper estimate of the memory that a run needs with what is free."""
    settings, own = config(subject), scheduled(subject)
    width = own.ahead * (8 if settings.run.dtype == "float64" else 4)
    sizes = [count * width for count in _parameters(subject)]
    master, host = estimate(sizes, own.scheme, own.pipeline)
    free, where = _free(subject)
    hosts = (
        0 if settings.pool.kind == "simulated" else settings.pool.hosts or min(settings.pool.workers, _fit(subject)[0])
    )
    needed = master + hosts * (host + HOST_MIB * MiB)
    each = f"{master / MiB:.0f} at the master, {host / MiB:.0f} + {HOST_MIB} on each of {count(hosts, 'host')}"
    text = f"needs at most {needed / MiB:.0f} MiB: {each}"
    if needed > free:
        return warning("memory", f"{text}; {where} has {free / MiB:.0f} MiB free: use fewer hosts or smaller models")
    return ok("memory", f"{text}; {where} has {free / MiB:.0f} MiB free")


def estimate(sizes: list[int], scheme: Scheme, pipeline: Pipeline | None = None) -> tuple[int, int]:
    """Upper estimates of the bytes at the master and on one host, for models whose parameters take `sizes` bytes."""
    # As if no row of an open job were freed before the job is decoded.
    if pipeline is not None:
        return (COPIES + pipeline.parts * pipeline.copies) * sum(sizes), 3 * sum(sizes)
    rows = (scheme.delay + 1) * len(scheme.codes) * scheme.n * max(sizes)
    return COPIES * sum(sizes) + rows, 2 * sum(sizes) + (scheme.delay + 1) * max(sizes)


def _free(subject: Subject) -> tuple[float, str]:
    if subject.address is None or config(subject).pool.kind == "local":
        return free_memory(), "this machine"
    return sum(node["memory"] for node in nodes(subject)["nodes"]), "the cluster"


def free_memory() -> float:
    """Bytes of memory available on this machine."""
    known = Path("/proc/meminfo")
    if known.is_file():
        lines = dict(line.split(":", 1) for line in known.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def run_folder(subject: Subject) -> list[Finding]:
    """Checks that the default run folder can be written: runs/ in the current folder."""
    config(subject)
    place = next(path for path in (Path("runs"), Path(".")) if path.is_dir())
    try:
        # Tried, because permissions alone do not tell: the file system may be full or read-only.
        tempfile.TemporaryFile(dir=place).close()
    except OSError as failure:
        text = f"cannot write in {place.resolve()}: {failure.strerror}: name another folder with --out"
        return [Finding("run folder", "error", text)]
    return ok("run folder", f"{place.resolve()} can be written")


CHECKS: list[tuple[str, Check]] = [
    ("config file", parses),
    ("scheme", scheme_holds),
    ("config file", holds),
    ("models", models),
    ("data", data),
    ("learners", contract),
    ("workers", room),
    ("memory", memory),
    ("run folder", run_folder),
]
