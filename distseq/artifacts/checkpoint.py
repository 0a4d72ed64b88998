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

from distseq.config.schema import Config
from distseq.learners.snapshot import Snapshot
from distseq.learners.state_files import DamagedError, pack, unpack

FORMAT = 1
STATE = "state.json"


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
        files[f"{name}.safetensors"], rest = pack(kept)
        learners.append({"name": name, "step": checkpoint.steps[name], **rest})
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
        {name: unpack(one, files[f"{name}.safetensors"]) for name, one in learners.items()},
    )


def _seal(number: int, state: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical([number, state])).hexdigest()


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


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
