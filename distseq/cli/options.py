"""Click options made from the keys of the config file that they replace."""

from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from distseq.config.keys import noted
from distseq.config.options import OPTIONS, Option

C = TypeVar("C", bound=Callable[..., Any])


def config_options(command: C) -> C:
    """Gives a command every option that replaces a key; one that is not given is None, and keeps the key."""
    # click shows the option that was added last first.
    for name, option in reversed(OPTIONS.items()):
        if option.key.meaning.shell:
            command = click.option(_flag(name, option), help=option.help, **_form(option))(command)
    return command


def given(context: click.Context) -> set[str]:
    """Names of the options of a command that were given, in the command line or the environment."""
    named = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)
    return {name for name in context.params if context.get_parameter_source(name) in named}


def like(name: str, more: str = "", *, default: bool = False, scheduler: bool = True) -> dict[str, Any]:
    """Type, placeholder and help text of a key, for an option of another command; `more` are sentences after its own.

    The help notes the kinds of scheduler that use the key, and its default, where these are the command's too.
    """
    key = OPTIONS[name].key
    schedulers = [f"scheduler: {', '.join(key.meaning.schedulers)}"] if scheduler and key.meaning.schedulers else []
    text = noted(f"{key.meaning.description} {more}".rstrip(), schedulers, key.default_text if default else "")
    return {"help": text, **_form(OPTIONS[name])}


def _flag(name: str, option: Option) -> str:
    """The name on the command line; of a key that is true by default, also the one that makes it false."""
    dashed = name.replace("_", "-")
    return f"--{dashed}/--no-{dashed}" if option.key.default is True else f"--{dashed}"


def _form(option: Option) -> dict[str, Any]:
    meaning, kind = option.key.meaning, option.key.kind
    if kind is bool:
        return {"is_flag": True, "default": None}
    metavar = f"[{'|'.join(meaning.values)}]" if meaning.values else meaning.metavar
    return {"type": kind, "metavar": metavar}
