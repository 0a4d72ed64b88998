"""Finds options that say nothing to what was chosen: `mu` without a closing rule that reads it, `hosts` of a simulated pool.

Which kinds of scheduler, pool, closing rule or objective read a key is part of its meaning (distseq.config.keys).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from distseq.config.keys import Key, keys
from distseq.config.options import OPTIONS
from distseq.config.schema import TABLES, Config
from distseq.scheduling.asynchronous import parse_async

# Keys that end rounds, of which `async`, configured like a scheme, has none.
OF_ROUNDS = ("closing", "cutoff", "mu")


def check_given(configs: Sequence[Config], options: Mapping[str, Any]) -> None:
    """ValueError for an option that was given, whatever its value, and that none of the configurations reads.

    options: name -> value, as for distseq.config.overrides.override; None is not given.
    """
    for option, value in options.items():
        if value is None or option not in OPTIONS:
            continue
        key = OPTIONS[option].key
        # A flag that stays off says nothing new.
        if value is not False or key.default is not False:
            refuse_silent(configs, option, key)


def check_set(config: Config) -> None:
    """ValueError for a key with a value of its own, beside its default, that the configuration does not read."""
    for name, table in TABLES.items():
        own = getattr(config, name)
        for key in keys(table):
            if getattr(own, key.name) != key.default:
                refuse_silent([config], f"{key.name} in [{name}]", key)
    for one in config.learner:
        for key in keys(type(one)):
            beside = key.meaning.beside
            if beside and getattr(one, key.name) and getattr(one, beside) is None:
                raise ValueError(f"learner {one.name}: {key.name} is given, but no {beside}")


def refuse_silent(configs: Sequence[Config], name: str, key: Key) -> None:
    """ValueError, naming the key as `name`, unless one of the configurations reads it."""
    if any(reads(config, key) for config in configs):
        return
    closing = [config.scheduler.scheme for config in configs if key.name in OF_ROUNDS and _stale(config)]
    if closing:
        raise ValueError(f"{name} is an option of rounds, which {closing[0]} does not have")
    for kind, known in key.meaning.readers.items():
        chosen = dict.fromkeys(_chosen(config, kind) for config in configs)
        if not set(chosen) & set(known):
            raise ValueError(
                f"{name} is an option of {kind}={_any(known)}: got {kind}={' and '.join(map(repr, chosen))}"
            )
    raise AssertionError(f"no configuration reads {name}, although each of its kinds was chosen")


def reads(config: Config, key: Key) -> bool:
    """Whether a run of this configuration looks at a key."""
    if key.name in OF_ROUNDS and _stale(config):
        return False
    return all(_chosen(config, kind) in known for kind, known in key.meaning.readers.items())


def without_silent(config: Config, before: Config | None = None) -> Config:
    """The configuration with keys that it does not read at their defaults; with `before`, only those that `before` did read.

    So that an option that chooses another scheduler or pool may leave behind, in a file, the settings of the former.
    """
    changes: dict[str, dict[str, Any]] = {}
    for name, table in TABLES.items():
        void = [key for key in keys(table) if not reads(config, key) and (before is None or reads(before, key))]
        changes[name] = {key.name: key.default for key in void}
    tables = {name: replace(getattr(config, name), **own) for name, own in changes.items() if own}
    return replace(config, **tables) if tables else config


def _stale(config: Config) -> bool:
    return config.scheduler.kind == "rounds" and parse_async(config.scheduler.scheme) is not None


def _chosen(config: Config, kind: str) -> str:
    own = {"scheduler": config.scheduler.kind, "pool": config.pool.kind}
    return own[kind] if kind in own else str(getattr(config.scheduler, kind))


def _any(known: Iterable[str]) -> str:
    return " or ".join(map(repr, known))
