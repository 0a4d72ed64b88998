"""Converts a learner's state to a safetensors file and plain JSON, and back, without pickle."""

from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError, numpy
from safetensors.torch import load, save

from distseq.learners.snapshot import Cut, Snapshot

Tensors = dict[str, torch.Tensor]


class DamagedError(ValueError):
    """A checkpoint is incomplete or has been changed."""


def separate(snapshot: Snapshot) -> tuple[Tensors, dict[str, Any]]:
    """A learner's tensors, copied, under their names in a checkpoint, and the rest as JSON.

    ValueError for an optimizer or schedule whose state is not plain data.
    """
    tensors = {f"model.{key}": tensor for key, tensor in snapshot.model.items()}
    tensors |= {f"average.{key}": tensor for key, tensor in (snapshot.average or {}).items()}
    tensors |= {} if snapshot.accumulated is None else {"accumulated": snapshot.accumulated}
    tensors |= {f"memory.{key}": tensor for key, tensor in (snapshot.memory or {}).items()}
    rest = {
        "summed": snapshot.summed,
        "evaluated": snapshot.evaluated,
        "cut": snapshot.cut._asdict(),
        "optimizer": _pack(snapshot.optimizer, "optimizer", tensors),
        "schedule": _pack(snapshot.schedule, "schedule", tensors),
    }
    # Copied also because safetensors refuses tensors that share memory, as tied weights do.
    return {key: t.detach().clone().contiguous() for key, t in tensors.items()}, rest


def file_of(tensors: Tensors) -> bytes:
    """The content of a safetensors file."""
    try:
        # The same bytes in a third of the time, of which small learners' checkpoints take most.
        return bytes(numpy.save({key: tensor.numpy() for key, tensor in tensors.items()}))
    except TypeError:  # numpy has no bfloat16 nor any smaller one
        return save(tensors)


def pack(snapshot: Snapshot) -> tuple[bytes, dict[str, Any]]:
    """The content of a safetensors file with a learner's tensors, and the rest as JSON; errors as of `separate`."""
    tensors, rest = separate(snapshot)
    return file_of(tensors), rest


def unpack(one: Mapping[str, Any], data: bytes) -> Snapshot:
    """Restores a Snapshot from what `pack` returned; `one` also has the learner's name. DamagedError for a bad file."""
    try:
        tensors = load(data)
    # The checksum has matched, so this file was written damaged: by another program, or a bug.
    except SafetensorError as error:
        raise DamagedError(f"{one['name']}.safetensors: {error}") from None
    optimizer, schedule = _unpack(one["optimizer"], tensors), _unpack(one["schedule"], tensors)
    if (
        not _is_optimizer(optimizer)
        or not (schedule is None or isinstance(schedule, dict))
        or type(one["summed"]) is not int
    ):
        raise DamagedError(f"what is kept of {str(one['name'])[:100]} is not the state of a learner")
    # A learner without an average has no such tensors.
    average = _below("average.", tensors) or None
    # Older checkpoints do not say when a schedule was stepped with an evaluation, for none was; nor anything of blocks.
    counts = (one["summed"], one.get("evaluated", 0), _cut(one.get("cut", {})))
    memory = _below("memory.", tensors) or None
    return Snapshot(
        _below("model.", tensors), optimizer, schedule, average, tensors.get("accumulated"), *counts, memory
    )


def _cut(packed: Any) -> Cut:
    try:
        return Cut(**packed)
    except TypeError:
        raise DamagedError(f"a cut into blocks is not {str(packed)[:100]}") from None


def _is_optimizer(state: Any) -> bool:
    """Whether plain data have the form of an optimizer's state dict."""
    if not isinstance(state, dict) or not isinstance(state.get("state"), dict):
        return False
    groups = state.get("param_groups")
    # Lists or tuples of numbers: a group's parameters.
    return isinstance(groups, list) and all(
        isinstance(group, dict)
        and isinstance(group.get("params"), list | tuple)
        and all(type(k) is int for k in group["params"])
        for group in groups
    )


def _below(prefix: str, tensors: Tensors) -> Tensors:
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def _pack(value: Any, path: str, tensors: Tensors) -> Any:
    """Nested plain data as JSON; tensors are moved to `tensors` under their path.

    JSON has no tensors, tuples or integer keys: these become {"$tensor": path}, {"$tuple": [...]} and {"$by_index": {...}}.
    """
    if isinstance(value, torch.Tensor):
        tensors[path] = value
        return {"$tensor": path}
    if isinstance(value, Mapping):
        packed = {str(key): _pack(one, f"{path}.{key}", tensors) for key, one in value.items()}
        # torch's optimizers key their state by a parameter's index, which JSON would turn into a string.
        if all(type(key) is int for key in value) and value:
            return {"$by_index": packed}
        # A user's key with a "$" could be taken for one of ours: such a mapping is refused below.
        if all(type(key) is str and not key.startswith("$") for key in value):
            return packed
    if isinstance(value, list | tuple):
        items = [_pack(one, f"{path}.{k}", tensors) for k, one in enumerate(value)]
        return {"$tuple": items} if isinstance(value, tuple) else items
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise ValueError(f"a checkpoint can only hold plain data and tensors: {path} is a {type(value).__name__}")


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
