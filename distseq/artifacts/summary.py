"""The final summary of a run: model quality, worker cost, and replays under other schemes."""

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
from distseq.models.data.text import Text
from distseq.monitoring.console import say
from distseq.monitoring.observers import Tally
from distseq.scheduling.adaptive.candidates import name_of as candidate_name
from distseq.scheduling.asynchronous import marked
from distseq.simulation.recorded import arrival_table
from distseq.simulation.simulate import Setting, simulate

# Jobs x workers of a replay at most: simulating a run takes some 10 microseconds of each, and a replay need not be longer than
# it takes to tell two schemes apart.
REPLAYED = 25_600
# Of a run whose process ended in the replays: it is complete all the same.
NO_REPLAYS: dict[str, Any] = {"replayed_seconds_per_job": {}, "not_replayed": "the process was ended before"}
# A model's figures in summary.json, and their headings
FIGURES = {
    "bits_per_char": "held-out bits/char",
    "unigram_bits_per_char": "unigram bits/char",
    "evaluation_loss": "held-out loss",
    "ap": "AP",
    "mrr": "MRR",
    "training_loss": "training loss",
    "skipped_steps": "skipped steps",
}


def summarize(
    config: Config,
    strategy: Strategy,
    learners: Iterable[Learner],
    texts: Mapping[str, Text],
    tally: Tally,
    seconds: float,
) -> dict[str, Any]:
    """The content of summary.json, without the replays.

    texts: for learners that are evaluated on the held-out part of their own text, that text, by the learner's name.
    seconds: pool time of the whole run, including the time before it was resumed.
    """
    models = {learner.name: _model_summary(learner, texts.get(learner.name), tally) for learner in learners}
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
        "gradients_checked": len(tally.differences),
        "largest_gradient_difference": max(tally.differences, default=None),
    }


def _model_summary(learner: Learner, text: Text | None, tally: Tally) -> dict[str, Any]:
    """The entry of one learner under "models"."""
    losses, failure = tally.losses.get(learner.name), tally.failures.get(learner.name)
    loss = float(np.mean(losses)) if losses else None
    entry: dict[str, Any] = {"steps": learner.steps if failure is None else failure.step, "training_loss": loss}
    if learner.name in tally.skipped:
        entry["skipped_steps"] = tally.skipped[learner.name]
    step, held_out = tally.evaluations.get(learner.name, (-1, 0.0))
    # An earlier evaluation is not of the weights that are saved.
    if step == learner.steps:
        entry["evaluation_loss"] = held_out
        if text is not None:
            entry["bits_per_char"] = held_out / math.log(2)
            entry["unigram_bits_per_char"] = text.unigram_entropy
    at, figures = tally.quality.get(learner.name, (-1, {}))
    if at == learner.steps:
        entry["evaluation"] = dict(figures)
        entry |= {key: figures[key] for key in ("ap", "mrr") if key in figures}
    if figures and learner.stream_evaluation is not None:
        entry["baselines"] = learner.stream_evaluation.baselines
        entry["evaluated"] = learner.stream_evaluation.described
    if learner.name in tally.states_sent:
        entry["states_sent"] = tally.states_sent[learner.name]
    if learner.name in tally.evaluation_failures:
        entry["evaluation_error"] = tally.evaluation_failures[learner.name].error
    return entry


def replays(strategy: Strategy, records: Iterable[Record], jobs: int) -> dict[str, Any]:
    """Replays the arrivals of a run in the simulator: as it was scheduled, uncoded, and under gradient coding.

    Of a long run, only as many jobs as make REPLAYED with the workers.

    Returns {"replayed_seconds_per_job": {scheme: seconds}}; when a replay is impossible, an empty mapping and the reason under
    "not_replayed".
    """
    own, pipeline = strategy.scheme, strategy.pipeline
    # Gradient coding with as much redundancy as the run had, so that the comparison is a fair one.
    spare = max(own.tolerance) if pipeline is None else pipeline.copies - 1
    others = ["uncoded", f"gc:{min(spare or 1, own.n - 1)}"]
    seconds: dict[str, Any] = {}
    try:
        setting = Setting(
            arrival_table(records, own.n),
            strategy.question.models,
            min(jobs, max(2 * strategy.question.models, REPLAYED // own.n)),
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
    except (ValueError, PoolError, OSError) as error:
        return {"replayed_seconds_per_job": {}, "not_replayed": str(error)}
    return {"replayed_seconds_per_job": seconds}


def show(console: Console, summary: Mapping[str, Any], folder: str) -> None:
    """Prints a summary as a table and a few lines."""
    # Bits per character are the loss of a text in another unit: one of the two is enough.
    models = {
        name: {key: one for key, one in model.items() if key != "evaluation_loss" or "bits_per_char" not in model}
        for name, model in summary["models"].items()
    }
    columns = [key for key in FIGURES if any(model.get(key) is not None for model in models.values())]
    table = Table("model", "steps", *(FIGURES[key] for key in columns))
    for name, model in models.items():
        figures = [model.get(key) for key in columns]
        shown = ("-" if one is None else str(one) if isinstance(one, int) else f"{one:.4g}" for one in figures)
        table.add_row(name, str(model["steps"]), *shown)
    console.print(table)
    rounds = f" in {summary['rounds']} rounds" if summary["rounds"] else ""
    # Of a simulated pool no clock knows anything.
    seconds = "virtual s" if summary.get("pool") == "simulated" else "s"
    per_job = summary["seconds_per_job"]
    each = (
        "" if per_job is None else f": {per_job:.3f} {seconds}/job under {marked(summary['scheme'], summary['exact'])}"
    )
    console.print(f"{summary['jobs']} jobs{rounds}, {summary['total_seconds']:.1f} {seconds}{each}", highlight=False)
    replayed = ", ".join(f"{spec} {seconds:.3f}" for spec, seconds in summary["replayed_seconds_per_job"].items())
    replayed = replayed or f"not possible, {summary['not_replayed']}"
    console.print(f"s/job when the same delays are replayed, with one CPU per worker: {replayed}", highlight=False)
    if summary["gradients_checked"]:
        console.print(
            f"largest relative difference between decoded and full-batch gradients: "
            f"{summary['largest_gradient_difference']:.1e} ({summary['gradients_checked']} jobs checked)",
            highlight=False,
        )
    say(console, f"run folder: {folder}")
