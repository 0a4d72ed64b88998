"""The checkpoint format: a folder of safetensors files and one JSON file, with a sha256 of each.

NAME.safetensors holds a learner's tensors, named `model.KEY`, `optimizer.PATH`, `average.KEY`, `memory.KEY` and `accumulated`;
state.json holds everything that is not a tensor. There is no pickle, so a checkpoint from elsewhere runs no code
(docs/decisions/008).
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
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
    # Steps may be raised to train longer; blocks count only once a learner draws, and are compared with those of its snapshot.
    # Everything else of a learner changes what is computed.
    free = ("steps", "blocks")
    learners = [{key: value for key, value in asdict(one).items() if key not in free} for one in config.learner]
    return hashlib.sha256(_canonical([learners, config.run.seed, config.run.dtype, work])).hexdigest()


@dataclass(frozen=True)
class Part:
    """One learner in a checkpoint."""

    entry: str  # its entry in state.json: JSON, with keys in the order of the optimizer's state
    canonical: str  # the same in the form that is hashed
    digest: str  # sha256 of its safetensors file


def part(name: str, step: int, rest: Mapping[str, Any], data: bytes) -> Part:
    """rest, data: as `pack` returns them."""
    entry = {"name": name, "step": step, **rest}
    return Part(json.dumps(entry), _canonical(entry).decode(), hashlib.sha256(data).hexdigest())


def file_name(learner: str) -> str:
    """One file per learner, so that weights can be read from a checkpoint with any safetensors library."""
    return f"{learner}.safetensors"


def state_file(configuration: str, next_job: int, parts: Mapping[str, Part]) -> bytes:
    """The content of state.json; parts: learner -> part, in the order of the run."""

    # Put together from entries: most learners have not changed since the last checkpoint, and encoding hundreds of them again
    # would take longer than to train one. Keys are in the order of `_canonical`.
    def state(learners: Iterable[str]) -> str:
        files = _canonical({file_name(name): one.digest for name, one in parts.items()}).decode()
        first = f'{{"configuration":{json.dumps(configuration)},"files":{files}'
        return f'{first},"learners":[{",".join(learners)}],"next_job":{next_job}}}'

    # The state has a checksum of its own, and with the files' checksums inside it covers them all.
    sealed = f"[{FORMAT},{state(one.canonical for one in parts.values())}]"
    seal = hashlib.sha256(sealed.encode()).hexdigest()
    content = state(one.entry for one in parts.values())
    return f'{{"format": {FORMAT}, "sha256": "{seal}", "state": {content}}}'.encode()


def encode(checkpoint: Checkpoint) -> dict[str, bytes]:
    """The files of a checkpoint, name -> content. ValueError for an optimizer or schedule whose state is not plain data."""
    packed = {name: pack(snapshot) for name, snapshot in checkpoint.snapshots.items()}
    parts = {name: part(name, checkpoint.steps[name], rest, data) for name, (data, rest) in packed.items()}
    files = {file_name(name): data for name, (data, _) in packed.items()}
    return {**files, STATE: state_file(checkpoint.configuration, checkpoint.next_job, parts)}


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
        files = {name: _file(folder, name) for name in state["files"]}
    # A file that is missing is damage like any other: the next older checkpoint may be intact.
    except OSError as error:
        raise DamagedError(f"{Path(error.filename or folder).name}: {error.strerror}") from None
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError, RecursionError):
        raise DamagedError(f"{STATE} is incomplete or not JSON") from None
    for name, data in files.items():
        # Before anything is unpacked: a damaged file must not half-restore a learner.
        if hashlib.sha256(data).hexdigest() != state["files"][name]:
            raise DamagedError(f"the checksum of {name} does not match")
    try:
        learners = {str(one["name"]): one for one in state["learners"]}
        return Checkpoint(
            str(state["configuration"]),
            _count(state["next_job"]),
            {name: _count(one["step"]) for name, one in learners.items()},
            {name: unpack(one, files[file_name(name)]) for name, one in learners.items()},
        )
    # The checksum has matched, so the state was written so: by another program, or a bug.
    except (KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{STATE} is not the state of a run: {type(error).__name__}: {error}") from None


def _file(folder: Path, name: str) -> bytes:
    # A name that leads out of the folder could be that of a device, whose end would never come.
    if Path(name).name != name or not (folder / name).is_file():
        raise DamagedError(f"{name[:100]!r} is not a file of the checkpoint")
    return (folder / name).read_bytes()


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError(f"a number of steps or jobs must be a whole one: got {str(value)[:100]}")
    return value


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
