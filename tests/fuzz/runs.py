"""Mutants of what a run reads and leaves: config file, journal, checkpoint, weights."""

import hashlib
import io
import json
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import tomli_w
import torch
from rich.console import Console
from torch import nn

from distseq.artifacts import checkpoint
from distseq.artifacts.checkpoint import Checkpoint
from distseq.artifacts.resume import _history
from distseq.config.toml_file import load_config, to_toml
from distseq.engine.journal import FileJournal
from distseq.learners.learner import Learner
from distseq.simulation.measure import run_trace
from tests.fuzz.harness import Kind
from tests.fuzz.mutations import EXTREMES, changed_json, nested
from tests.project.source import ROOT

WHOLE = """
[run]
steps = 6
seed = 3
checks = 2
dtype = "float64"
[pool]
kind = "local"
workers = 8
hosts = 2
delays = "bursts:base=0.1"
[scheduler]
scheme = "msgc:1,2,2"
closing = "mu"
mu = 0.5
[[learner]]
name = "a"
model = "m:M"
model_args = { width = 3, deep = [1, { x = 2.5 }] }
data = "csv:x.csv"
data_args = { columns = ["a"], classes = true }
batch = 8
optimizer_args = { betas = [0.9, 0.99] }
schedule = "cosine"
clip = 1.0
groups = [{ match = "bias", weight_decay = 0.0 }]
"""


def _configs() -> list[bytes]:
    contents = [(ROOT / "examples" / name).read_bytes() for name in ("main.toml", "zoo.toml")]
    return [*contents, WHOLE.replace('groups = [{ match = "bias", weight_decay = 0.0 }]\n', "").encode()]


def _toml(value: Any) -> Any:
    """Plain data without what TOML cannot hold."""
    if isinstance(value, Mapping):
        return {key: _toml(one) for key, one in value.items() if one is not None}
    return [_toml(one) for one in value if one is not None] if isinstance(value, list) else value


def _changed_config(rng: Random, seeds: Sequence[bytes]) -> bytes:
    changed = _toml(changed_json(rng, tomllib.loads(rng.choice(seeds).decode())))
    return tomli_w.dumps(changed if isinstance(changed, dict) else {"x": changed}).encode("utf-8", "surrogatepass")


def _deep_config(rng: Random, seeds: Sequence[bytes]) -> bytes:
    depth = rng.choice([10, 900, 5000])
    deep = rng.choice(["[" * depth + "]" * depth, "{a=" * depth + "1" + "}" * depth])
    return rng.choice([f"x = {deep}", f"{'a.' * depth}b = 1", f"[{'a.' * depth}b]", f"{WHOLE}\nema = {deep}"]).encode()


def _read_config(path: Path) -> None:
    config = load_config(path)
    written = path.parent / "again.toml"
    written.write_text(to_toml(config), encoding="utf-8")
    try:
        # As text, since nan differs from itself.
        assert to_toml(load_config(written)) == to_toml(config)
    finally:
        written.unlink()


def _records() -> list[dict[str, Any]]:
    arrival = [0, 0, 0, 0.5, 0.1, 0.2, 0.25, 1, 0, 0]
    return [
        {"kind": "run", "config": {"run": {"steps": 4}}, "members": {"0": "a", "1": "b"}, "exact": True},
        {
            "kind": "round",
            "t": 0,
            "begun": 0.0,
            "ended": 0.6,
            "waited": False,
            "arrivals": [arrival, [1, *arrival[1:]]],
        },
        {
            "kind": "job",
            "job": 0,
            "learner": "a",
            "step": 0,
            "loss": 0.5,
            "opened": 0.0,
            "decoded": 0.6,
            "staleness": 0,
        },
        {"kind": "hosts", "text": "host-0 was replaced"},
        {"kind": "resume", "steps": {"a": 1}, "workers": 2, "exact": True},
        {
            "kind": "job",
            "job": 1,
            "learner": "a",
            "step": 1,
            "loss": 0.25,
            "opened": 0.0,
            "decoded": 0.6,
            "staleness": 0,
            "arrivals": [arrival],
        },
        {"kind": "evaluation", "learner": "a", "step": 2, "loss": 0.5},
    ]


def _lines(records: Sequence[Any]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def _changed_journal(rng: Random, seeds: Sequence[bytes]) -> bytes:
    changed = changed_json(rng, _records())
    return _lines(changed if isinstance(changed, list) else [changed])


def _deep_journal(rng: Random, seeds: Sequence[bytes]) -> bytes:
    depth = rng.choice([500, 5000, 100_000])
    return rng.choice(seeds) + b"[" * depth + rng.choice([b"", b"]" * depth]) + b"\n"


def _read_journal(path: Path) -> None:
    run_trace(path.parent)


def _go_on_with_journal(path: Path) -> None:
    """As a resumed run does: damage costs figures, not the run."""
    before = path.read_bytes()
    _history(path, {"a": 2}, Console(file=io.StringIO()))
    journal = FileJournal(path, resume=True)
    journal.write({"kind": "resume"})
    journal.close()
    after = path.read_bytes()
    assert after == before[: before.rfind(b"\n") + 1] + b'{"kind":"resume"}\n'
    path.write_bytes(before)


@cache
def _learner() -> Learner:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    data = [(torch.ones(2), torch.ones(1)) for _ in range(4)]
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    learner = Learner(
        "a",
        model,
        optimizer,
        data=data,
        batch=2,
        steps=4,
        ema=0.5,
        loss=lambda model, batch: ((model(batch[0]) - batch[1]) ** 2).mean(1),
    )
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return learner


@cache
def _checkpoint() -> dict[str, bytes]:
    return checkpoint.encode(Checkpoint("c" * 64, 3, {"a": 1}, {"a": _learner().snapshot()}))


def _sealed(state: Any, number: Any = checkpoint.FORMAT) -> bytes:
    return json.dumps({"format": number, "sha256": checkpoint._seal(number, state), "state": state}).encode()


def _changed_state(rng: Random, seeds: Sequence[bytes]) -> bytes:
    """A state with a checksum that is right."""
    return _sealed(changed_json(rng, json.loads(_checkpoint()[checkpoint.STATE])["state"]))


def _changed_envelope(rng: Random, seeds: Sequence[bytes]) -> bytes:
    return json.dumps(changed_json(rng, json.loads(_checkpoint()[checkpoint.STATE]))).encode()


def _deep_state(rng: Random, seeds: Sequence[bytes]) -> bytes:
    depth = rng.choice([500, 5000, 100_000])
    return rng.choice([b"[" * depth, b'{"state":' * depth + b"1" + b"}" * depth, _sealed(nested(rng, 300))])


def _read_state(path: Path) -> None:
    (path.parent / "a.safetensors").write_bytes(_checkpoint()["a.safetensors"])
    try:
        _restore(path.parent)
    finally:
        (path.parent / "a.safetensors").unlink()


def _read_tensors(path: Path) -> None:
    """Tensors that were damaged before their checksum was taken."""
    state = json.loads(_checkpoint()[checkpoint.STATE])["state"]
    state["files"]["a.safetensors"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (path.parent / checkpoint.STATE).write_bytes(_sealed(state))
    try:
        _restore(path.parent)
    finally:
        (path.parent / checkpoint.STATE).unlink()


def _restore(folder: Path) -> None:
    found = checkpoint.read(folder)
    before = _learner().publish().tobytes()
    try:
        for snapshot in found.snapshots.values():
            _learner().restore(snapshot)
    except ValueError:
        # As bytes, since nan differs from itself.
        assert _learner().publish().tobytes() == before
        raise


def _changed_tensors(rng: Random, seeds: Sequence[bytes]) -> bytes:
    """Another header, with a length that may be another one too."""
    content = rng.choice(seeds)
    size = int.from_bytes(content[:8], "little")
    header = json.dumps(changed_json(rng, json.loads(content[8 : 8 + size]))).encode()
    told = rng.choice([len(header)] * 4 + EXTREMES)
    return told.to_bytes(8, "little") + header + content[8 + size :]


def _changed_values(rng: Random, seeds: Sequence[bytes]) -> bytes:
    """Other values of the tensors, under the same header."""
    content = bytearray(rng.choice(seeds))
    begin = 8 + int.from_bytes(content[:8], "little")
    at = rng.randrange(begin, len(content))
    content[at : at + 4] = rng.choice([b"\0\0\xc0\x7f", b"\xff\xff\x7f\x7f", rng.randbytes(4)])[: len(content) - at]
    return bytes(content)


CONFIG = Kind("config", "c.toml", _configs, _read_config, own=(_changed_config, _changed_config, _deep_config))
JOURNAL = Kind(
    "journal",
    "journal.jsonl",
    lambda: [_lines(_records())],
    _read_journal,
    own=(_changed_journal, _changed_journal, _deep_journal),
)
JOURNAL_RESUMED = Kind(
    "journal.resumed",
    "journal.jsonl",
    lambda: [_lines(_records())],
    _go_on_with_journal,
    own=(_changed_journal, _deep_journal),
)
STATE = Kind(
    "checkpoint",
    checkpoint.STATE,
    lambda: [_checkpoint()[checkpoint.STATE]],
    _read_state,
    own=(_changed_state, _changed_state, _changed_envelope, _deep_state),
)
WEIGHTS = Kind(
    "weights",
    "a.safetensors",
    lambda: [_checkpoint()["a.safetensors"]],
    _read_tensors,
    own=(_changed_tensors, _changed_values),
)
