"""What a run says at its end: how well the models do, what the workers cost, and what other schemes would have cost."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from distseq.cluster.errors import PoolError
from distseq.config.schema import Config
from distseq.config.strategy import Strategy
from distseq.engine.journal import Record
from distseq.learners.learner import Learner
from distseq.monitoring.gradient_check import GradientCheck
from distseq.monitoring.observers import Tally
from distseq.scheduling.adaptive.candidates import name_of as candidate_name
from distseq.scheduling.asynchronous import marked
from distseq.simulation.recorded import arrival_table
from distseq.simulation.simulate import Setting, simulate

LAST = 10  # steps whose losses make the final training loss


def summarize(
    config: Config,
    strategy: Strategy,
    learners: Iterable[Learner],
    texts: Mapping[str, Any],
    tally: Tally,
    check: GradientCheck,
    seconds: float,
) -> dict[str, Any]:
    """The numbers of summary.json, the replays excepted. `texts`: of the learners that are evaluated on their own text."""
    models: dict[str, dict[str, Any]] = {}
    for learner in learners:
        losses, failed = tally.losses.get(learner.name), tally.failures.get(learner.name)
        loss = float(np.mean(losses[-LAST:])) if losses else None
        models[learner.name] = {"steps": learner.steps if failed is None else failed.step, "training_loss": loss}
        step, held_out = tally.evaluations.get(learner.name, (-1, 0.0))
        if step == learner.steps:
            models[learner.name]["evaluation_loss"] = held_out
        if step == learner.steps and learner.name in texts:
            models[learner.name]["bits_per_char"] = held_out / math.log(2)
            models[learner.name]["unigram_bits_per_char"] = texts[learner.name].unigram_entropy
        if learner.name in tally.evaluation_failures:
            models[learner.name]["evaluation_error"] = tally.evaluation_failures[learner.name].error
    return {
        "scheme": strategy.name,
        "exact": strategy.exact and tally.exact,
        "closing": config.scheduler.closing if strategy.pipeline is None else None,
        "chosen": [choice["chosen"] for choice in tally.choices],
        "pool": config.pool.kind,
        "workers": config.pool.workers,
        "delays": config.pool.delays,
        "models": models,
        "failures": [one.brief() for one in tally.failures.values()],
        "jobs": tally.jobs,
        "rounds": tally.rounds,
        "waits": tally.waits,
        "total_seconds": seconds,
        "seconds_per_job": seconds / tally.jobs if tally.jobs else None,
        "gradients_checked": len(check.differences),
        "largest_gradient_difference": max(check.differences, default=None),
    }


def replays(strategy: Strategy, records: list[Record], jobs: int) -> dict[str, Any]:
    """Seconds per job of the arrivals of this run, replayed in the simulator as it was scheduled, uncoded and under GC.

    {"replayed_seconds_per_job": {scheme: seconds}}; with nothing in it, and the reason beside, when a replay is impossible.
    """
    own, pipeline = strategy.scheme, strategy.pipeline
    spare = max(own.tolerance) if pipeline is None else pipeline.copies - 1
    others = ["uncoded", f"gc:{min(spare or 1, own.n - 1)}"]
    seconds: dict[str, Any] = {}
    try:
        setting = Setting(
            arrival_table(records, own.n),
            strategy.question.models,
            jobs,
            strategy.closing,
            strategy.unfinished,
            arrival="row",
            inexact=not strategy.exact,
            objective=strategy.question.objective,
            prices=strategy.question.prices,
            places=strategy.places,
        )
        for candidate in dict.fromkeys([strategy.candidate, *others]):
            result = simulate(setting, candidate)
            seconds[marked(candidate_name(candidate), result["exact"])] = result["seconds_per_job"]
    except (ValueError, PoolError) as error:
        return {"replayed_seconds_per_job": {}, "not_replayed": str(error)}
    return {"replayed_seconds_per_job": seconds}


def show(console: Console, summary: Mapping[str, Any], folder: str) -> None:
    """Print a summary for people."""
    table = Table("model", "steps", "held-out bits/char", "unigram bits/char", "training loss, nats")
    for name, model in summary["models"].items():
        bits = [f"{model[key]:.3f}" if key in model else "-" for key in ("bits_per_char", "unigram_bits_per_char")]
        loss = "-" if model["training_loss"] is None else f"{model['training_loss']:.3f}"
        table.add_row(name, str(model["steps"]), *bits, loss)
    console.print(table)
    rounds = f"{summary['rounds']} rounds" if summary["rounds"] else "no rounds"
    console.print(
        f"{summary['jobs']} jobs in {rounds}, {summary['total_seconds']:.1f} s: "
        f"{summary['seconds_per_job']:.3f} s/job under {marked(summary['scheme'], summary['exact'])}",
        highlight=False,
    )
    replayed = ", ".join(f"{spec} {seconds:.3f}" for spec, seconds in summary["replayed_seconds_per_job"].items())
    replayed = replayed or f"not possible, {summary['not_replayed']}"
    console.print(f"the same arrivals replayed, each worker on a CPU of its own, s/job: {replayed}", highlight=False)
    if summary["gradients_checked"]:
        console.print(
            f"largest relative difference between decoded and full-batch gradients: "
            f"{summary['largest_gradient_difference']:.1e} ({summary['gradients_checked']} jobs checked)",
            highlight=False,
        )
    console.print(f"run folder: {folder}", highlight=False, soft_wrap=True)
