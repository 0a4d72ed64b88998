"""Checks of a config file: what `distseq train` of it would need."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from distseq.cli.doctor.cluster import nodes
from distseq.cli.doctor.findings import Check, Finding, Subject, UnknownError, ok, warning
from distseq.cluster.ray.resources import HostResources
from distseq.coding.schemes.scheme import Scheme
from distseq.config.schema import Config
from distseq.config.toml_file import load_config
from distseq.scheduling.asynchronous import marked
from distseq.scheduling.pipeline import Pipeline

if TYPE_CHECKING:
    from distseq.config.strategy import Strategy

MiB = 1 << 20
HOST_MIB = 200  # of a host: a Ray actor that has imported torch
COPIES = 4  # of a learner's parameters at the master: values, gradient, two moments


def config(subject: Subject) -> Config:
    """The job. UnknownError without one."""
    job = subject.job
    if job is None:
        raise UnknownError("no config file")
    return subject.once("config", lambda: load_config(job))


def scheduled(subject: Subject) -> "Strategy":
    """The strategy of the config file, made once."""
    # Its schedulers need numba, without which the other checks still find something.
    from distseq.config.strategy import strategy

    job = config(subject)
    return subject.once("strategy", lambda: strategy(job))


def parses(subject: Subject) -> list[Finding]:
    job = config(subject)
    return ok(
        "config file", f"{subject.job}: {len(job.learner)} learners, {job.pool.workers} workers, pool {job.pool.kind}"
    )


def scheme_holds(subject: Subject) -> list[Finding]:
    own = scheduled(subject)
    found, pipeline = own.scheme, own.pipeline
    own.check(config(subject).run.dtype)
    if pipeline is not None:
        parts = f"{pipeline.parts} parts of each job, at most {pipeline.copies} copies of one"
        return ok("scheme", f"{own.heading} for {found.n} workers: {parts}")
    return ok(
        "scheme",
        f"{marked(found.spec, found.exact)} for {found.n} workers: load {float(found.load):.3g}, delay {found.delay}",
    )


def models(subject: Subject) -> list[Finding]:
    from distseq.coding.import_string import load_object

    names = sorted({one.model for one in config(subject).learner})
    for name in names:
        load_object(name)
    return ok("models", f"{', '.join(names)} can be imported")


def data(subject: Subject) -> Iterator[Finding]:
    from distseq.models.data.dataset import open_dataset

    opened: dict[str, int] = {}
    for one in config(subject).learner:
        key = f"{one.data} {one.data_args}"
        if key not in opened:
            opened[key] = len(open_dataset(one.data, **one.data_args))
            yield Finding("data", "ok", f"{one.data}: {opened[key]} samples")


def contract(subject: Subject) -> list[Finding]:
    parameters = _parameters(subject)
    return ok("learners", f"a row and a step of each is as it must be; {sum(parameters)} parameters")


def _parameters(subject: Subject) -> list[int]:
    """Trained parameters of each learner, once all have passed the contract."""
    from distseq.learners.from_config import build_fleet

    job = config(subject)
    fleet = subject.once("fleet", lambda: build_fleet(job))
    return [learner.open(0).parameters.size for learner in fleet.learners]


def room(subject: Subject) -> list[Finding]:
    """Hosts are processes, one on each CPU, or actors with what the job says; workers may share one."""
    pool = config(subject).pool
    if pool.kind == "simulated":
        return ok("workers", f"{pool.workers} workers in virtual time")
    fit, where = _fit(subject)
    if pool.kind == "ray" and (pool.hosts or 1) > fit:
        return [Finding("workers", "error", f"{pool.hosts or 1} hosts do not fit: {where}")]
    hosts = min(pool.workers, fit if pool.hosts is None else pool.hosts)
    if hosts < pool.workers:
        return warning(
            "workers", f"{pool.workers} workers share {hosts} hosts ({where}): a host that dies is several workers"
        )
    return ok("workers", f"{pool.workers} workers, one on each host ({where})")


def _fit(subject: Subject) -> tuple[int, str]:
    """How many hosts there is room for, and where."""
    pool, cpus = config(subject).pool, os.cpu_count() or 1
    if pool.kind != "ray":
        return cpus, f"this machine has {cpus} CPUs"
    needs = HostResources(pool.cpus, pool.gpus, pool.resources)
    found = [{"CPU": cpus}] if subject.address is None else [node["resources"] for node in nodes(subject)["nodes"]]
    fit = sum(needs.room(node) for node in found)
    return fit, f"{'this machine' if subject.address is None else 'the cluster'} has room for {fit} of {needs}"


def memory(subject: Subject) -> list[Finding]:
    """An upper estimate: no row of an open job is given back before it is decoded."""
    job, own = config(subject), scheduled(subject)
    width = own.ahead * (8 if job.run.dtype == "float64" else 4)
    sizes = [count * width for count in _parameters(subject)]
    master, host = estimate(sizes, own.scheme, own.pipeline)
    free, where = _free(subject)
    hosts = 0 if job.pool.kind == "simulated" else job.pool.hosts or min(job.pool.workers, _fit(subject)[0])
    needed = master + hosts * (host + HOST_MIB * MiB)
    each = f"{master / MiB:.0f} at the master, {host / MiB:.0f} + {HOST_MIB} at each of {hosts} hosts"
    text = f"at most {needed / MiB:.0f} MiB: {each}"
    if needed > free:
        return warning("memory", f"{text}; {where} has {free / MiB:.0f} MiB free: take fewer hosts or smaller models")
    return ok("memory", f"{text}; {where} has {free / MiB:.0f} MiB free")


def estimate(sizes: list[int], scheme: Scheme, pipeline: Pipeline | None = None) -> tuple[int, int]:
    """Bytes at the master, and at a host, for models of so many bytes of parameters each."""
    if pipeline is not None:
        return (COPIES + pipeline.parts * pipeline.copies) * sum(sizes), 3 * sum(sizes)
    rows = (scheme.delay + 1) * len(scheme.codes) * scheme.n * max(sizes)
    return COPIES * sum(sizes) + rows, 2 * sum(sizes) + (scheme.delay + 1) * max(sizes)


def _free(subject: Subject) -> tuple[float, str]:
    if subject.address is None or config(subject).pool.kind == "local":
        return free_memory(), "this machine"
    return sum(node["memory"] for node in nodes(subject)["nodes"]), "the cluster"


def free_memory() -> float:
    """Bytes that this machine can still give."""
    known = Path("/proc/meminfo")
    if known.is_file():
        lines = dict(line.split(":", 1) for line in known.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def run_folder(subject: Subject) -> list[Finding]:
    """The default, below the current folder."""
    config(subject)
    place = next(path for path in (Path("runs"), Path(".")) if path.is_dir())
    try:
        tempfile.TemporaryFile(dir=place).close()
    except OSError as failure:
        text = f"cannot write in {place.resolve()}: {failure.strerror}: name another folder with --out"
        return [Finding("run folder", "error", text)]
    return ok("run folder", f"{place.resolve()} can be written")


CHECKS: list[tuple[str, Check]] = [
    ("config file", parses),
    ("scheme", scheme_holds),
    ("models", models),
    ("data", data),
    ("learners", contract),
    ("workers", room),
    ("memory", memory),
    ("run folder", run_folder),
]
