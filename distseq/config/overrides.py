"""Applies options of `train`, on the command line or in Python, to a configuration."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from distseq.config.options import OPTIONS
from distseq.config.schema import Config, LearnerConfig
from distseq.config.silent import check_given, without_silent


def override(config: Config, options: Mapping[str, Any]) -> Config:
    """The configuration with these options in place of its own keys; None keeps a key.

    `steps` holds for every learner, and a `scheme` means rounds. ValueError for an unknown option, a wrong value, or an option
    that the scheduler does not use.

    Example: override(config, {"pool": "simulated", "workers": 256})
    """
    for option in options:
        if option not in OPTIONS:
            raise ValueError(f"train has no option {option!r}; known: {', '.join(OPTIONS)}")
    given = {option: value for option, value in options.items() if value is not None}
    if "scheme" in given:
        # A scheme has no meaning without rounds: naming one chooses them.
        given.setdefault("scheduler", "rounds")
    if "seed" in given and any(one.live for one in config.learner):
        # Their weights were drawn before: another seed would change the batches only, and mislead.
        raise ValueError("learners made in Python have a seed of their own each: give it to distseq.Learner")
    changed = replace(config, **_tables(config, given), learner=_learners(config, given))
    # A file may be trained in several ways: what it says to a pool or scheduler that an option replaces is left out.
    changed = without_silent(changed, before=config)
    check_given([changed], given)
    return changed


def _tables(config: Config, given: Mapping[str, Any]) -> dict[str, Any]:
    """The tables that options change."""
    changes: dict[str, dict[str, Any]] = defaultdict(dict)
    for option, value in given.items():
        changes[OPTIONS[option].table][OPTIONS[option].key.name] = value
    return {table: replace(getattr(config, table), **own) for table, own in changes.items()}


def _learners(config: Config, given: Mapping[str, Any]) -> tuple[LearnerConfig, ...]:
    # The option is meant for all learners; their own steps would win over those of [run].
    return tuple(replace(one, steps=None) for one in config.learner) if "steps" in given else config.learner
