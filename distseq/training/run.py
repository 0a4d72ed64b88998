"""Runs the master from its start, or from a checkpoint, to its end, and writes the run folder."""

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
from distseq.cluster.pool import Pool
from distseq.cluster.system.stop_signals import Stopped, StopRequest
from distseq.config.schema import Config
from distseq.engine.evaluation import Evaluate
from distseq.engine.failures import FailedError
from distseq.engine.interfaces import Observer
from distseq.engine.journal import Journal, MemoryJournal, Tee
from distseq.engine.master import Master
from distseq.learners.learner import Learner
from distseq.monitoring.console import Display
from distseq.monitoring.gradient_check import GradientCheck
from distseq.monitoring.observers import Metered, Tally
from distseq.training.pool import make_pool
from distseq.training.prepare import PreparedRun, prepare_run

NOT_KEPT = "the latest steps could not be checkpointed"


@dataclass(frozen=True)
class Result:
    """The result of a run: the trained learners, the run folder, and the summary that is also in its summary.json.

    The folder also holds the weights, one safetensors file per learner.

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
    """Trains in the run folder `out`, or resumes the run in it.

    learners: those that `config` describes, if they were made in Python. ValueError, with nothing left behind, for a wrong
    configuration; PoolError when the pool gives up; FailedError when every learner has failed; Stopped when asked to stop.
    """
    prepared = prepare_run(config, out, console, resume, learners)
    start, fleet = prepared.resume_point, prepared.fleet
    if resume and complete(out, config, start):
        console.print(f"nothing to do: {out} is complete, {sum(start.done)} jobs", highlight=False, soft_wrap=True)
        return Result(fleet.learners, out, json.loads((out / "summary.json").read_bytes()))
    tally, check, records = Tally(), _gradient_check(prepared), MemoryJournal()
    tally.restore(start.history)
    folder = RunFolder.resumed(out) if resume else RunFolder(out, config)
    done = dict(zip(prepared.steps, start.done, strict=True))
    display = Display(console, prepared.steps, frozenset(fleet.texts()), done)
    observers = [tally, check, display, *watchers]
    seconds = _drive(prepared, folder, records, console, display, observers, resume)
    summary = _write_results(prepared, folder, tally, check, records, start.history.seconds + seconds)
    if len(tally.failures) == len(fleet.learners):
        raise FailedError(list(tally.failures.values()), str(folder.path))
    return Result(fleet.learners, folder.path, summary)


def _gradient_check(prepared: PreparedRun) -> GradientCheck:
    config, fleet = prepared.config, prepared.fleet
    return GradientCheck(
        fleet.work,
        list(prepared.steps.values()),
        config.run.checks,
        lambda m: fleet.learners[m].publish(),
        one_pass=config.pool.kind == "simulated" and config.pool.compute == "decoded",
    )


def _write_results(
    prepared: PreparedRun,
    folder: RunFolder,
    tally: Tally,
    check: GradientCheck,
    records: MemoryJournal,
    seconds: float,
) -> dict[str, Any]:
    """Writes the weights of the learners that did not fail and the summary, which it returns."""
    config, fleet, texts = prepared.config, prepared.fleet, prepared.fleet.texts()
    for learner in fleet.learners:
        # A learner that failed is in the checkpoint only: its weights are those of an unfinished training.
        for name, state in learner.weights().items() if learner.name not in tally.failures else ():
            folder.save_weights(name, state)
    own_texts = {one.name: texts[one.name] for one in config.learner if one.name in texts and one.evaluation is None}
    summary = summarize(config, prepared.strategy, fleet.learners, own_texts, tally, check, seconds)
    # Before the replays, which take seconds: a process that is killed in them has finished its run all the same.
    folder.save_summary(summary)
    summary |= replays(prepared.strategy, records.records, tally.jobs)
    folder.save_summary(summary)
    return summary


def _drive(
    prepared: PreparedRun,
    folder: RunFolder,
    records: MemoryJournal,
    console: Console,
    display: Display,
    observers: Sequence[Any],
    resume: bool,
) -> float:
    """Starts the pool, runs the master to its end or until it is asked to stop, and releases everything; pool seconds."""
    config, start, learners = prepared.config, prepared.resume_point, prepared.fleet.learners
    request = StopRequest()
    # Released in reverse order: first the checkpointer, which may still be writing, then the pool and the journal. Signals are
    # caught to the end, so that a second Ctrl-C does not leave workers behind.
    with ExitStack() as stack:
        stack.callback(request.restore)
        stack.callback(folder.journal.close)
        try:
            pool = make_pool(config, prepared.fleet, prepared.trace)
        except BaseException:
            # The run never began: its folder would only be in the way of the next attempt.
            folder.discard()
            raise
        stack.callback(pool.close)
        # After the pool was made: Ray sets handlers of its own.
        request.install()
        journal = Tee(folder.journal, records)
        _record_start(prepared, folder, journal, pool, resume)
        stack.enter_context(display)
        checkpointer = Checkpointer(
            folder.checkpoints, learners, prepared.identity, config.checkpoint, console, request.asked
        )
        stack.callback(checkpointer.close)
        checkpointer.begin(start.done, start.next_job, resumed=resume)
        master = Master(
            learners,
            prepared.scheduler,
            pool,
            journal,
            [*observers, *_metrics(config)],
            first_job=start.next_job,
            done=start.done,
            checkpoint_hook=checkpointer,
            evaluate=Evaluate(prepared.fleet.evaluated, config.run.evaluate_every),
            ahead=prepared.strategy.ahead,
        )
        total = sum(prepared.steps.values())
        return _to_the_end(master, checkpointer, total, request, _how_to_resume(config, folder.path))


def _record_start(prepared: PreparedRun, folder: RunFolder, journal: Journal, pool: Pool, resume: bool) -> None:
    """Writes the journal's first record of this process; a resumed run also takes over the new configuration."""
    config, done = prepared.config, prepared.resume_point.done
    record = {"config": asdict(config), "members": dict(pool.members()), "exact": prepared.strategy.exact}
    if resume:
        # Only now that the pool has started: until then the folder is as the earlier run left it.
        folder.go_on(config)
        journal.write({"kind": "resume", "steps": dict(zip(prepared.steps, done, strict=True)), **record})
    else:
        journal.write({"kind": "run", **record})


def _metrics(config: Config) -> list[Observer]:
    """Observers that export metrics: on Ray, to its dashboard."""
    if config.pool.kind != "ray":
        return []
    from distseq.cluster.ray.metrics import RunMeter

    return [Metered(RunMeter())]


def _how_to_resume(config: Config, out: Path) -> str:
    live = any(one.live for one in config.learner)
    return f"go on with: {f'distseq.train([...], resume={str(out)!r})' if live else f'distseq train --resume {out}'}"


def _to_the_end(master: Master, checkpointer: Checkpointer, jobs: int, request: StopRequest, how: str) -> float:
    """Runs the master and returns its pool seconds; its last state is checkpointed whether it ends, stops or loses its pool.

    Not after any other error, which may have come in the middle of a step.
    """
    try:
        seconds = master.run()
    except PoolError as error:
        raise PoolError(f"{error}; {how}" if checkpointer.finish() else str(error)) from error
    saved = checkpointer.finish()
    if master.stopped:
        raise Stopped(f"stopped after {checkpointer.jobs} of {jobs} jobs; {how if saved else NOT_KEPT}", request.code)
    return seconds
