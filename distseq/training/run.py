"""From a configuration to trained models: builds fleet, pool and scheduler, runs the master, writes the run folder.

A run that is resumed goes on in its folder, from its newest whole checkpoint.
"""

import json
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from distseq.artifacts.checkpointer import Checkpointer
from distseq.artifacts.resume import complete
from distseq.artifacts.run_folder import RunFolder
from distseq.artifacts.summary import replays, summarize
from distseq.cluster.errors import PoolError
from distseq.cluster.system.stop_signals import Stopped, StopRequest
from distseq.config.schema import Config
from distseq.engine.evaluation import Evaluate
from distseq.engine.failures import FailedError
from distseq.engine.journal import MemoryJournal, Tee
from distseq.engine.master import Master
from distseq.learners.learner import Learner
from distseq.monitoring.console import Display
from distseq.monitoring.gradient_check import GradientCheck
from distseq.monitoring.observers import Metered, Tally
from distseq.training.pool import make_pool
from distseq.training.prepare import PreparedRun, _prepare

NOT_KEPT = "its last steps could not be kept"


@dataclass(frozen=True)
class Result:
    """What a run leaves: the trained learners, the run folder and the summary that is also in its summary.json.

    Weights are in the folder too, one safetensors file for each learner.

    >>> import distseq, torch
    >>> from safetensors.torch import load_file
    >>> model = torch.nn.Linear(2, 1)
    >>> data = torch.utils.data.TensorDataset(torch.randn(64, 2), torch.randn(64, 1))
    >>> loss = lambda model, batch: (model(batch[0]) - batch[1]).square().mean(1)
    >>> line = distseq.Learner("line", model, torch.optim.SGD(model.parameters(), 0.1), data=data, batch=8, steps=5, loss=loss)
    >>> result = distseq.train([line], pool="simulated", workers=4, out="run", console=Console(quiet=True))
    >>> weights = load_file(result.folder / "weights" / "line.safetensors")
    >>> torch.equal(weights["weight"], result.learners[0].model.weight)
    True
    >>> sorted(result.summary["models"]["line"])
    ['steps', 'training_loss']
    """

    learners: tuple[Learner, ...]
    folder: Path
    summary: dict[str, Any]  # JSON: "models" by name, "failures", "jobs", "total_seconds", "seconds_per_job", ...


def run(
    config: Config,
    out: Path,
    console: Console,
    watchers: Iterable[Any] = (),
    *,
    resume: bool = False,
    learners: Sequence[Learner] | None = None,
) -> Result:
    """Train; `learners`, where they are made in Python, are those that `config` describes.

    ValueError, with nothing left behind, for a wrong configuration; PoolError when the pool gives up, FailedError when every
    learner has failed.
    """
    job = _prepare(config, out, console, resume, learners)
    if resume and complete(out, config, job.start):
        console.print(f"nothing to do: {out} is complete, {sum(job.start.done)} jobs", highlight=False, soft_wrap=True)
        return Result(job.fleet.learners, out, json.loads((out / "summary.json").read_bytes()))
    one_pass = config.pool.kind == "simulated" and config.pool.compute == "decoded"
    check = GradientCheck(
        job.fleet.work,
        list(job.steps.values()),
        config.run.checks,
        lambda m: job.fleet.learners[m].publish(),
        one_pass=one_pass,
    )
    tally, kept, texts = Tally(), MemoryJournal(), job.fleet.texts()
    tally.restore(job.start.history)
    folder = RunFolder.resumed(out) if resume else RunFolder(out, config)
    display = Display(console, job.steps, frozenset(texts), dict(zip(job.steps, job.start.done, strict=True)))
    seconds = _drive(job, folder, kept, console, display, [tally, check, display, *watchers], resume)
    for learner in job.fleet.learners:
        for name, state in learner.weights().items() if learner.name not in tally.failures else ():
            folder.save_weights(name, state)
    plain = {one.name: texts[one.name] for one in config.learner if one.name in texts and one.evaluation is None}
    summary = summarize(
        config, job.strategy, job.fleet.learners, plain, tally, check, job.start.history.seconds + seconds
    )
    folder.save_summary(summary)
    summary |= replays(job.strategy, kept.records, tally.jobs)
    folder.save_summary(summary)
    if len(tally.failures) == len(job.fleet.learners):
        raise FailedError(list(tally.failures.values()), str(folder.path))
    return Result(job.fleet.learners, folder.path, summary)


def _drive(
    job: PreparedRun,
    folder: RunFolder,
    kept: MemoryJournal,
    console: Console,
    display: Display,
    observers: Sequence[Any],
    resume: bool,
) -> float:
    """Start the pool, run the master to its end or to a request to stop, and release everything; seconds of pool time."""
    config, start, learners = job.config, job.start, job.fleet.learners
    request = StopRequest()
    with ExitStack() as stack:
        stack.callback(request.restore)
        stack.callback(folder.journal.close)
        try:
            pool = make_pool(config, job.fleet, job.trace)
        except BaseException:
            folder.discard()
            raise
        stack.callback(pool.close)
        # After the pool: Ray sets handlers of its own.
        request.install()
        journal = Tee(folder.journal, kept)
        record = {"config": asdict(config), "members": dict(pool.members()), "exact": job.strategy.exact}
        if resume:
            folder.go_on(config)
            journal.write({"kind": "resume", "steps": dict(zip(job.steps, start.done, strict=True)), **record})
        else:
            journal.write({"kind": "run", **record})
        if config.pool.kind == "ray":
            from distseq.cluster.ray.metrics import RunMeter

            observers = [*observers, Metered(RunMeter())]
        stack.enter_context(display)
        checkpointer = Checkpointer(
            folder.checkpoints, learners, job.identity, config.checkpoint, console, request.asked
        )
        stack.callback(checkpointer.close)
        checkpointer.begin(start.done, start.next_job, resumed=resume)
        master = Master(
            learners,
            job.scheduler,
            pool,
            journal,
            observers,
            first_job=start.next_job,
            done=start.done,
            checkpoint_hook=checkpointer,
            evaluate=Evaluate(job.fleet.evaluated, config.run.evaluate_every),
            ahead=job.strategy.ahead,
        )
        return _to_the_end(master, checkpointer, sum(job.steps.values()), request, _again(config, folder.path))


def _again(config: Config, out: Path) -> str:
    live = any(one.live for one in config.learner)
    return f"go on with: {f'distseq.train([...], resume={str(out)!r})' if live else f'distseq train --resume {out}'}"


def _to_the_end(master: Master, checkpointer: Checkpointer, jobs: int, request: StopRequest, again: str) -> float:
    """Run the master; whatever ends it, its last state is kept, unless an error may have come in the middle of a step."""
    try:
        seconds = master.run()
    except PoolError as error:
        raise PoolError(f"{error}; {again}" if checkpointer.finish() else str(error)) from error
    kept = checkpointer.finish()
    if master.stopped:
        raise Stopped(f"stopped after {checkpointer.jobs} of {jobs} jobs; {again if kept else NOT_KEPT}", request.code)
    return seconds
