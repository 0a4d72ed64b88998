"""The checkpoint format: a folder of safetensors files and one JSON file, with a sha256 of each.

NAME.safetensors holds a learner's tensors, named `model.KEY`, `optimizer.PATH`, `average.KEY` and `accumulated`; state.json holds
everything that is not a tensor. There is no pickle, so a checkpoint from elsewhere runs no code (docs/decisions/008).
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

# Raise it with every change that an older distseq could misread: it refuses a number that it does not know.
FORMAT = 1
STATE = "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a run needs in order to be resumed."""

    configuration: str  # `identity` of the run
    next_job: int  # number of the next job
    # Learner -> steps made. Batches are a function of (seed, step), so this is the state of every sampler, too.
    steps: Mapping[str, int]
    snapshots: Mapping[str, Snapshot]  # learner -> state

    @property
    def jobs(self) -> int:
        """Total number of jobs applied, which is the checkpoint's number."""
        return sum(self.steps.values())


def identity(config: Config, work: str) -> str:
    """sha256 of everything that the results of a run depend on, which a resumed run must not change.

    These are learners, seed, dtype and, in the fleet's description `work`, fingerprints of the data. Pool, number of workers,
    scheme and steps are not among them: they may change.
    """
    # Steps may be raised to train longer; everything else of a learner changes what is computed.
    learners = [{key: value for key, value in asdict(one).items() if key != "steps"} for one in config.learner]
    return hashlib.sha256(_canonical([learners, config.run.seed, config.run.dtype, work])).hexdigest()


def encode(checkpoint: Checkpoint) -> dict[str, bytes]:
    """The files of a checkpoint, name -> content. ValueError for an optimizer or schedule whose state is not plain data.

    Every tensor is copied, so that training may go on while the files are written.
    """
    learners, files = [], {}
    for name, snapshot in checkpoint.snapshots.items():
        # One file per learner, so that weights can be read from a checkpoint with any safetensors library.
        files[f"{name}.safetensors"], rest = pack(snapshot)
        learners.append({"name": name, "step": checkpoint.steps[name], **rest})
    state = {
        "configuration": checkpoint.configuration,
        "next_job": checkpoint.next_job,
        "learners": learners,
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    }
    # The state has a checksum of its own, and with the files' checksums inside it covers them all.
    envelope = {"format": FORMAT, "sha256": _seal(FORMAT, state), "state": state}
    return {**files, STATE: json.dumps(envelope, indent=1).encode()}


def read(folder: Path) -> Checkpoint:
    """Reads the checkpoint in a folder. DamagedError when it is damaged, ValueError when its format is another one."""
    try:
        envelope = json.loads((folder / STATE).read_bytes())
        number, seal, state = envelope["format"], envelope["sha256"], envelope["state"]
        if seal != _seal(number, state):
            raise DamagedError(f"the checksum of {STATE} does not match")
        # Only after the checksum, which covers the number: a flipped bit is damage and not "another format".
        if number != FORMAT:
            raise ValueError(
                f"checkpoint {folder} has format {number}, but this version of distseq reads format {FORMAT}"
            )
        files = {name: (folder / name).read_bytes() for name in state["files"]}
    # A file that is missing is damage like any other: the next older checkpoint may be intact.
    except OSError as error:
        raise DamagedError(f"{Path(error.filename or folder).name}: {error.strerror}") from None
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError):
        raise DamagedError(f"{STATE} is incomplete or not JSON") from None
    for name, data in files.items():
        # Before anything is unpacked: a damaged file must not half-restore a learner.
        if hashlib.sha256(data).hexdigest() != state["files"][name]:
            raise DamagedError(f"the checksum of {name} does not match")
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
    # Sorted and without spaces: the same content has one hash, whatever Python or json wrote it.
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def numbered(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoints in a folder as (number, path), newest first."""
    paths = folder.iterdir() if folder.is_dir() else ()
    return sorted(((int(path.name), path) for path in paths if path.name.isdecimal()), reverse=True)


def newest(folder: Path) -> tuple[Checkpoint, Sequence[str]]:
    """The newest intact checkpoint, and a line for each newer one that is damaged. ValueError when there is none."""
    damaged: list[str] = []
    for _, path in numbered(folder):
        try:
            return read(path), damaged
        except DamagedError as error:
            damaged.append(f"checkpoint {path} is damaged: {error}")
    raise ValueError(damaged[0] + ", and no older one is intact" if damaged else f"no checkpoint in {folder}")
