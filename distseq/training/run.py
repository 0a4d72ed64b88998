"""Runs the master from its start, or from a checkpoint, to its end, and writes the run folder."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any

from rich.console import Console

from distseq.artifacts.checkpointer import Checkpointer
from distseq.artifacts.resume import complete
from distseq.artifacts.run_folder import RunFolder, check_free
from distseq.artifacts.summary import NO_REPLAYS, replays, summarize
from distseq.artifacts.upload import uploaded
from distseq.cluster.errors import PoolError
from distseq.cluster.pool import Pool
from distseq.cluster.system.stop_signals import Stopped, StopRequest
from distseq.config.schema import Config
from distseq.engine.checks import Check
from distseq.engine.evaluation import Evaluate
from distseq.engine.failures import FailedError, UnwrittenError
from distseq.engine.interfaces import Observer
from distseq.engine.journal import latest_records
from distseq.engine.master import Master
from distseq.learners.learner import Learner
from distseq.monitoring.console import Display, say
from distseq.monitoring.forgiving import Forgiven, Warnings, forgiving
from distseq.monitoring.observers import Metered, Tally
from distseq.training.pool import make_pool
from distseq.training.prepare import PreparedRun, prepare_run
from distseq.training.threads import announce_threads

NOT_KEPT = "the latest steps could not be checkpointed"
INTERRUPTED = 130  # exit code of what was ended by KeyboardInterrupt without a signal, as by a watcher


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
    out: Path | str,
    console: Console,
    watchers: Iterable[Any] = (),
    *,
    resume: bool = False,
    learners: Sequence[Learner] | None = None,
) -> Result:
    """Trains in the run folder `out`, or resumes the run in it; a string names the first of runs/NAME-1, ... that is free.

    learners: those that `config` describes, if they were made in Python. ValueError, with nothing left behind, for a wrong
    configuration; PoolError when the pool gives up; FailedError when every learner has failed; UnwrittenError when the results
    cannot be written; Stopped when asked to stop.
    """
    with forgiving(console), ExitStack() as stack:
        warn, tell = Warnings(console), partial(say, console)
        folder = None
        if isinstance(out, Path):
            if resume:
                folder = RunFolder.opened(out, warn)
                stack.callback(folder.close)
            else:
                # Looked at again when it is made; before the data are opened, a mistake costs no time.
                check_free(out)
            stack.enter_context(uploaded(config.run.upload, out, tell))
        # A run that was killed before it kept anything begins again.
        begun = folder is not None and folder.begun
        prepared = prepare_run(config, Path(out), console, begun, learners)
        start, fleet = prepared.resume_point, prepared.fleet
        if begun and folder is not None and (summary := complete(folder.path, config, start)) is not None:
            say(console, f"nothing to do: {out} is complete, {sum(start.done)} jobs")
            return Result(fleet.learners, folder.path, summary)
        if folder is None and isinstance(out, Path):
            folder = RunFolder.new(out, config, warn)
            stack.callback(folder.close)
        elif folder is None:
            folder = RunFolder.next_of(str(out), config, warn)
            stack.enter_context(_uploaded(folder, config, tell))
            stack.callback(folder.close)
        elif begun:
            folder.open_journal()
        else:
            warn(f"nothing was kept in {out} when its run ended: it begins again at step 0")
            folder.begin_again(config)
        announce_threads(console)
        return _Run(prepared, folder, console, warn, begun).result(watchers)


def _uploaded(folder: RunFolder, config: Config, say: Callable[[str], object]) -> ExitStack:
    """`uploaded`, of a folder that has just been made; where it cannot be copied, it is removed."""
    context = ExitStack()
    try:
        context.enter_context(uploaded(config.run.upload, folder.path, say))
    except ValueError:
        folder.discard()
        raise
    return context


class _Run:
    """A run in a folder, from its start to its end.

    begun: whether it goes on from a checkpoint.
    """

    def __init__(self, prepared: PreparedRun, folder: RunFolder, console: Console, warn: Warnings, begun: bool) -> None:
        self._prepared, self._folder, self._console, self._warn, self._begun = prepared, folder, console, warn, begun
        self._tally = Tally()
        self._tally.restore(prepared.resume_point.history)
        self._request = StopRequest(self._say_stopping)

    def _say(self, line: str) -> None:
        say(self._console, line)

    def _say_stopping(self) -> None:
        """Called by the handler of the first signal."""
        self._say("stopping: the last state is written, then the run ends (a second signal ends it at once)")

    def result(self, watchers: Iterable[Any]) -> Result:
        prepared, fleet = self._prepared, self._prepared.fleet
        for line in prepared.tried:
            self._say(line)
        display = _display(prepared, self._console)
        told = [display, *_metrics(prepared.config), *watchers]
        observers = [self._tally, *(Forgiven(one, self._warn) for one in told)]
        seconds = self._drive(display, observers)
        summary = self._write_summary(prepared.resume_point.history.seconds + seconds)
        # Raised last: the summary with its list of failures is written first.
        if len(self._tally.failures) == len(fleet.learners):
            raise FailedError(list(self._tally.failures.values()), str(self._folder.path))
        return Result(fleet.learners, self._folder.path, summary)

    def _drive(self, display: Display, observers: Sequence[Any]) -> float:
        """Starts the pool, runs the master to its end or until it is asked to stop, and releases everything; pool seconds."""
        prepared, request = self._prepared, self._request
        config, start, learners = prepared.config, prepared.resume_point, prepared.fleet.learners
        # Released in reverse order: first the checkpointer, which may still be writing, then the pool. Signals are caught to the
        # end, so that a second Ctrl-C does not leave workers behind.
        with ExitStack() as stack:
            stack.callback(request.restore)
            pool = self._pool()
            stack.callback(pool.close)
            # After the pool was made: Ray sets handlers of its own.
            request.install()
            _record_start(prepared, self._folder, pool, self._begun)
            stack.enter_context(display)
            checkpointer = Checkpointer(
                self._folder.checkpoints,
                learners,
                prepared.identity,
                config.checkpoint,
                self._console,
                request.asked,
                when_trained=self._save_weights,
            )
            stack.callback(checkpointer.close)
            checkpointer.begin(start.done, start.next_job, resumed=self._begun)
            master = Master(
                learners,
                prepared.scheduler,
                pool,
                self._folder.journal,
                observers,
                first_job=start.next_job,
                done=start.done,
                checkpoint_hook=checkpointer,
                evaluate=_evaluate(prepared),
                check=_check(prepared),
                ahead=prepared.strategy.ahead,
                adaptive=prepared.strategy.adaptive,
            )
            return self._to_the_end(master, checkpointer)

    def _pool(self) -> Pool:
        """The started pool. Where it does not start, what this process has written is removed: the run never began."""
        # A pool starts in seconds to minutes, in which nothing is there yet that could be kept.
        self._request.install(at_once=True)
        try:
            return make_pool(self._prepared.config, self._prepared.fleet, self._prepared.trace, self._say)
        except BaseException as error:
            self._folder.discard()
            if self._request.code and isinstance(error, KeyboardInterrupt):
                how = f"; {self._how_to_go_on()}" if self._begun else ""
                raise Stopped(f"stopped before the first job{how}", self._request.code) from None
            raise

    def _to_the_end(self, master: Master, checkpointer: Checkpointer) -> float:
        """Runs the master and returns its pool seconds. However it ends, its last state is kept, and how to go on is said."""
        total, how = sum(self._prepared.steps.values()), self._how_to_go_on()
        try:
            seconds = master.run()
        except BaseException as error:
            kept = checkpointer.keep(master.done, master.next_job, master.stepping)
            end = how if kept else f"{NOT_KEPT}; {how}"
            if isinstance(error, PoolError):
                raise PoolError(f"{error}; {end}") from error
            if isinstance(error, UnwrittenError):
                raise UnwrittenError(f"{error}; {end}") from error
            if isinstance(error, KeyboardInterrupt):
                code = self._request.code or INTERRUPTED
                raise Stopped(f"stopped after {checkpointer.jobs} of {total} jobs; {end}", code) from None
            # Whose error it is, only its traceback can tell.
            self._say(f"ended after {checkpointer.jobs} of {total} jobs; {end}")
            raise
        saved = checkpointer.finish()
        if master.stopped:
            end = how if saved else f"{NOT_KEPT}; {how}"
            raise Stopped(f"stopped after {checkpointer.jobs} of {total} jobs; {end}", self._request.code)
        return seconds

    def _how_to_go_on(self) -> str:
        live, out = any(one.live for one in self._prepared.config.learner), str(self._folder.path)
        return f"go on with: {f'distseq.train([...], resume={out!r})' if live else resume_command(out)}"

    def _save_weights(self) -> None:
        """Writes the weights of the learners that did not fail."""
        for learner in self._prepared.fleet.learners:
            # A learner that failed is in the checkpoint only: its weights are those of an unfinished training.
            for name, state in learner.weights().items() if learner.name not in self._tally.failures else ():
                self._folder.save_weights(name, state)

    def _write_summary(self, seconds: float) -> dict[str, Any]:
        """Writes the summary, which it returns."""
        prepared, tally = self._prepared, self._tally
        config, fleet, texts = prepared.config, prepared.fleet, prepared.fleet.texts()
        own_texts = {
            one.name: texts[one.name] for one in config.learner if one.name in texts and one.evaluation is None
        }
        summary = summarize(config, prepared.strategy, fleet.learners, own_texts, tally, seconds)
        journal = self._folder.journal
        try:
            # Before the replays, which take seconds: a process that is killed in them has finished its run all the same.
            self._folder.save_summary(summary | NO_REPLAYS)
            summary |= replays(prepared.strategy, latest_records(journal.path, journal.began), tally.jobs)
            self._folder.save_summary(summary)
        except KeyboardInterrupt:
            summary |= NO_REPLAYS
        except UnwrittenError as error:
            raise UnwrittenError(f"{error}; {self._how_to_go_on()}") from None
        return summary


def _display(prepared: PreparedRun, console: Console) -> Display:
    done = dict(zip(prepared.steps, prepared.resume_point.done, strict=True))
    virtual = prepared.config.pool.kind == "simulated"
    return Display(console, prepared.steps, frozenset(prepared.fleet.texts()), done, virtual=virtual)


def _evaluate(prepared: PreparedRun) -> Evaluate:
    """How often learners are evaluated, and which of them wait for it."""
    learners = prepared.fleet.learners
    awaiting = {m: learner.evaluated_at for m, learner in enumerate(learners) if learner.awaits_evaluation}
    return Evaluate(
        prepared.fleet.evaluated,
        prepared.config.run.evaluate_every,
        awaiting,
        lambda m, step, loss: learners[m].evaluated(step, loss),
        lambda m: learners[m].publish_evaluation(),
        {m: one.stream_evaluation.judged for m, one in enumerate(learners) if one.stream_evaluation is not None},
    )


def _check(prepared: PreparedRun) -> Check:
    """Which jobs' gradients the pool compares."""
    config, fleet = prepared.config, prepared.fleet
    sizes = [
        {name: p.numel() for name, p in learner.model.named_parameters() if p.requires_grad}
        for learner in fleet.learners
    ]
    exact = prepared.strategy.exact
    one_pass = config.pool.kind == "simulated" and config.pool.compute == "decoded"
    # What a baseline that is not exact decodes in one pass is no full batch, with which its rows could be compared.
    return Check(config.run.checks, sizes, exact, one_pass and exact)


def _record_start(prepared: PreparedRun, folder: RunFolder, pool: Pool, begun: bool) -> None:
    """Writes the journal's first record of this process; a resumed run also takes over the new configuration."""
    config, done = prepared.config, prepared.resume_point.done
    record = {"config": asdict(config), "members": dict(pool.members()), "exact": prepared.strategy.exact}
    if begun:
        # Only now that the pool has started: until then the folder is as the earlier run left it.
        folder.go_on(config)
        folder.journal.write({"kind": "resume", "steps": dict(zip(prepared.steps, done, strict=True)), **record})
    else:
        folder.journal.write({"kind": "run", **record})
    for m, one in enumerate(prepared.fleet.learners):
        if one.cut.blocks:
            cut = {"blocks": one.cut.blocks, "joint": one.cut.joint}
            folder.journal.write({"kind": "blocks", "learner": one.name, "step": done[m], **cut})


def _metrics(config: Config) -> list[Observer]:
    """Observers that export metrics: on Ray, to its dashboard."""
    if config.pool.kind != "ray":
        return []
    from distseq.cluster.ray.metrics import RunMeter

    return [Metered(RunMeter())]


def resume_command(out: str) -> str:
    """The command that resumes the run in a folder, for a shell."""
    return f"distseq train --resume {quote(out)}"
