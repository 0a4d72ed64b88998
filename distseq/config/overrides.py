"""Options of `train`, on the command line or in Python, in place of keys of a job file."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from distseq.config.schema import Config
from distseq.scheduling.asynchronous import parse_async

# option -> table and key of the job file
OPTIONS = {
    "steps": ("run", "steps"),
    "seed": ("run", "seed"),
    "scheduler": ("scheduler", "kind"),
    "scheme": ("scheduler", "scheme"),
    "closing": ("scheduler", "closing"),
    "cutoff": ("scheduler", "cutoff"),
    "mu": ("scheduler", "mu"),
    "parts": ("scheduler", "parts"),
    "copies": ("scheduler", "copies"),
    "lanes": ("scheduler", "lanes"),
    "burst": ("scheduler", "burst"),
    "places": ("scheduler", "places"),
    "objective": ("scheduler", "objective"),
    "prices": ("scheduler", "prices"),
    "inexact": ("scheduler", "inexact"),
    "pool": ("pool", "kind"),
    "workers": ("pool", "workers"),
    "hosts": ("pool", "hosts"),
    "address": ("pool", "address"),
    "elastic": ("pool", "elastic"),
    "device": ("pool", "device"),
    "cpus": ("pool", "cpus"),
    "gpus": ("pool", "gpus"),
    "delays": ("pool", "delays"),
    "unfinished": ("pool", "unfinished"),
    "compute": ("pool", "compute"),
    "checks": ("run", "checks"),
    "checkpoint_every": ("checkpoint", "every"),
    "checkpoint_keep": ("checkpoint", "keep"),
}
# option -> the kinds of scheduler that it says something to
KINDS = {
    **dict.fromkeys(("scheme", "closing", "cutoff", "mu"), ("rounds",)),
    **dict.fromkeys(("parts", "copies", "lanes", "burst"), ("pipeline",)),
    **dict.fromkeys(("objective", "prices"), ("auto",)),
    "places": ("pipeline", "auto"),
}


def override(config: Config, options: Mapping[str, Any]) -> Config:
    """The configuration with these OPTIONS in place of its own; steps hold for every learner, a scheme means rounds."""
    if options.get("scheme") is not None and options.get("scheduler") is None:
        options = {**options, "scheduler": "rounds"}
    for option, value in options.items():
        if option not in OPTIONS:
            raise ValueError(f"train has no option {option!r}; known: {', '.join(OPTIONS)}")
        if option == "seed" and value is not None and any(one.live for one in config.learner):
            raise ValueError("learners made in Python have a seed of their own each: give it to distseq.Learner")
        if value is not None:
            table, key = OPTIONS[option]
            config = replace(config, **{table: replace(getattr(config, table), **{key: value})})
    for option, kinds in KINDS.items():
        if options.get(option) is not None and config.scheduler.kind not in kinds:
            wanted = " or ".join(map(repr, kinds))
            raise ValueError(f"{option} is an option of scheduler={wanted}: got scheduler={config.scheduler.kind!r}")
    closing = [name for name in ("closing", "cutoff", "mu") if options.get(name) is not None]
    if closing and parse_async(config.scheduler.scheme) is not None:
        raise ValueError(f"{closing[0]} is an option of rounds: {config.scheduler.scheme} has none")
    if options.get("steps") is not None:
        config = replace(config, learner=tuple(replace(one, steps=None) for one in config.learner))
    return config
