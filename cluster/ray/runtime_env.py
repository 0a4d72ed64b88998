"""Checks the runtime environment of a pool's hosts, and makes it one that Ray takes for an actor."""

import difflib
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray._private.runtime_env.py_modules import upload_py_modules_if_needed
from ray._private.runtime_env.working_dir import upload_working_dir_if_needed
from ray.runtime_env import RuntimeEnv

WHERE = "runtime_env in [pool]"
# "excludes" speaks of a working_dir only; the others, with _, are Ray's own.
KNOWN = sorted(name for name in RuntimeEnv.known_fields if not name.startswith("_"))

# Ray logs what it uploads among the lines of the run.
SILENT = logging.Logger("distseq.runtime_env", logging.CRITICAL + 1)


def check(env: Mapping[str, Any]) -> None:
    """ValueError, in one line, for an environment that Ray would refuse, or of which it would ignore a key."""
    for name in env:
        if name not in KNOWN:
            near = difflib.get_close_matches(name, KNOWN, n=1, cutoff=0.0)
            raise ValueError(f"unknown key {name!r} in {WHERE}; nearest: {near[0]}")
    modules = env.get("py_modules", [])
    if not isinstance(modules, list) or not all(isinstance(path, str) for path in modules):
        raise ValueError(f"{WHERE}: py_modules must be an array of paths or URIs: got {modules!r}")
    for name, path in [("working_dir", env.get("working_dir")), *(("py_modules", path) for path in modules)]:
        if isinstance(path, str) and "://" not in path and not Path(path).expanduser().exists():
            raise ValueError(f"{WHERE}: {name} {path!r} does not exist")
    try:
        RuntimeEnv(**env)
    # Ray raises what comes to hand: ValueError, TypeError, AssertionError, errors of packages.
    except Exception as error:
        raise ValueError(f"{WHERE}: {' '.join(str(error).split())}") from None


def for_actors(env: Mapping[str, Any]) -> dict[str, Any]:
    """The environment with local folders uploaded to the connected cluster, beside what this job's environment has."""
    if not env:
        return {}
    ready = dict(env)
    for name in ("working_dir", "py_modules"):
        if name in ready:
            paths = ready[name]
            ready[name] = [_absolute(one) for one in paths] if isinstance(paths, list) else _absolute(paths)
    with tempfile.TemporaryDirectory(prefix="distseq-") as scratch:
        for upload in (upload_py_modules_if_needed, upload_working_dir_if_needed):
            ready = upload(ready, include_gitignore=True, scratch_dir=scratch, logger=SILENT)
    # An actor's list replaces its job's, in which `distseq submit` sends distseq.
    inherited = ray.get_runtime_context().runtime_env.get("py_modules") or []
    if ready.get("py_modules"):
        ready["py_modules"] = [*ready["py_modules"], *(one for one in inherited if one not in ready["py_modules"])]
    return ready


def _absolute(path: str) -> str:
    return path if "://" in path else str(Path(path).expanduser().resolve())
