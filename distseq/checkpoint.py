"""A checkpoint is a folder of safetensors and one JSON file, each with its sha256; no pickle.

NAME.safetensors holds a learner's tensors, named `model.KEY`, `optimizer.PATH`, `average.KEY` and `accumulated`; state.json
everything that is not a tensor.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from distseq.config import Config
from distseq.likeness import Snapshot

FORMAT = 1
STATE = "state.json"
Tensors = dict[str, torch.Tensor]


class DamagedError(ValueError):
    """A checkpoint that is not whole."""


@dataclass(frozen=True)
class Checkpoint:
    """All that a run needs to go on."""

    configuration: str  # identity of what the numbers depend on
    next_job: int
    steps: Mapping[str, int]  # steps made by each learner; what its sampler draws next depends on nothing else
    snapshots: Mapping[str, Snapshot]

    @property
    def jobs(self) -> int:
        """Jobs applied in all: its number."""
        return sum(self.steps.values())


def identity(config: Config, work: str) -> str:
    """sha256 of what the numbers of a run depend on: learners, seeds, dtype, the data's fingerprints (both in the `work`);
    not of pool, workers, scheme and steps."""
    learners = [{key: value for key, value in asdict(one).items() if key != "steps"} for one in config.learner]
    return hashlib.sha256(_canonical([learners, config.run.seed, config.run.dtype, work])).hexdigest()


def encode(checkpoint: Checkpoint) -> dict[str, bytes]:
    """File name -> content; copies every tensor. ValueError for an optimizer or schedule whose state is not plain data."""
    learners, files = [], {}
    for name, kept in checkpoint.snapshots.items():
        tensors = {f"model.{key}": tensor for key, tensor in kept.model.items()}
        tensors |= {f"average.{key}": tensor for key, tensor in (kept.average or {}).items()}
        tensors |= {} if kept.accumulated is None else {"accumulated": kept.accumulated}
        optimizer = _pack(kept.optimizer, "optimizer", tensors)
        schedule = _pack(kept.schedule, "schedule", tensors)
        files[f"{name}.safetensors"] = save({key: t.detach().clone().contiguous() for key, t in tensors.items()})
        learners.append(
            {
                "name": name,
                "step": checkpoint.steps[name],
                "summed": kept.summed,
                "optimizer": optimizer,
                "schedule": schedule,
            },
        )
    state = {
        "configuration": checkpoint.configuration,
        "next_job": checkpoint.next_job,
        "learners": learners,
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    }
    envelope = {"format": FORMAT, "sha256": _seal(FORMAT, state), "state": state}
    return {**files, STATE: json.dumps(envelope, indent=1).encode()}


def read(folder: Path) -> Checkpoint:
    """The checkpoint in a folder. DamagedError when it is not whole, ValueError when a newer distseq has written it."""
    try:
        envelope = json.loads((folder / STATE).read_bytes())
        number, seal, state = envelope["format"], envelope["sha256"], envelope["state"]
        if seal != _seal(number, state):
            raise DamagedError(f"{STATE} does not have its checksum")
        if number != FORMAT:
            raise ValueError(f"checkpoint {folder} has format {number}, this version of distseq reads {FORMAT}")
        files = {name: (folder / name).read_bytes() for name in state["files"]}
    except OSError as error:
        raise DamagedError(f"{Path(error.filename or folder).name}: {error.strerror}") from None
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError):
        raise DamagedError(f"{STATE} is not whole") from None
    for name, data in files.items():
        if hashlib.sha256(data).hexdigest() != state["files"][name]:
            raise DamagedError(f"{name} does not have its checksum")
    learners = {one["name"]: one for one in state["learners"]}
    return Checkpoint(
        state["configuration"],
        state["next_job"],
        {name: one["step"] for name, one in learners.items()},
        {name: _snapshot(one, files[f"{name}.safetensors"]) for name, one in learners.items()},
    )


def _snapshot(one: Mapping[str, Any], data: bytes) -> Snapshot:
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise DamagedError(f"{one['name']}.safetensors: {error}") from None
    optimizer, schedule = _unpack(one["optimizer"], tensors), _unpack(one["schedule"], tensors)
    average = _below("average.", tensors) or None
    return Snapshot(_below("model.", tensors), optimizer, schedule, average, tensors.get("accumulated"), one["summed"])


def _below(prefix: str, tensors: Tensors) -> Tensors:
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def _seal(number: int, state: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical([number, state])).hexdigest()


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _pack(value: Any, path: str, tensors: Tensors) -> Any:
    """JSON of nested plain data; a tensor goes into `tensors` under its path. What JSON lacks is {"$kind": ...}."""
    if isinstance(value, torch.Tensor):
        tensors[path] = value
        return {"$tensor": path}
    if isinstance(value, Mapping):
        packed = {str(key): _pack(one, f"{path}.{key}", tensors) for key, one in value.items()}
        if all(type(key) is int for key in value) and value:
            return {"$by_index": packed}
        if all(type(key) is str and not key.startswith("$") for key in value):
            return packed
    if isinstance(value, list | tuple):
        items = [_pack(one, f"{path}.{k}", tensors) for k, one in enumerate(value)]
        return {"$tuple": items} if isinstance(value, tuple) else items
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise ValueError(f"a checkpoint cannot hold {path}, a {type(value).__name__}: it holds plain data and tensors")


def _unpack(value: Any, tensors: Tensors) -> Any:
    match value:
        case {"$tensor": str(path)}:
            return tensors[path]
        case {"$tuple": list(items)}:
            return tuple(_unpack(one, tensors) for one in items)
        case {"$by_index": dict(packed)}:
            return {int(key): _unpack(one, tensors) for key, one in packed.items()}
        case dict():
            return {key: _unpack(one, tensors) for key, one in value.items()}
        case list():
            return [_unpack(one, tensors) for one in value]
    return value


def numbered(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoints in a folder, the newest first."""
    paths = folder.iterdir() if folder.is_dir() else ()
    return sorted(((int(path.name), path) for path in paths if path.name.isdecimal()), reverse=True)


def newest(folder: Path) -> tuple[Checkpoint, Sequence[str]]:
    """The newest checkpoint that is whole, and a line for each newer one that is not. ValueError when there is none."""
    damaged: list[str] = []
    for _, path in numbered(folder):
        try:
            return read(path), damaged
        except DamagedError as error:
            damaged.append(f"checkpoint {path} is damaged: {error}")
    raise ValueError(damaged[0] + ", and there is no whole one before it" if damaged else f"no checkpoint in {folder}")
