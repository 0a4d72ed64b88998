"""A learner's state as one safetensors file and plain JSON, and back; no pickle."""

from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from distseq.learners.snapshot import Snapshot

Tensors = dict[str, torch.Tensor]


class DamagedError(ValueError):
    """A checkpoint that is not whole."""


def pack(kept: Snapshot) -> tuple[bytes, dict[str, Any]]:
    """A learner's tensors as a safetensors file, and the rest as JSON; copies every tensor.

    ValueError for an optimizer or schedule whose state is not plain data.
    """
    tensors = {f"model.{key}": tensor for key, tensor in kept.model.items()}
    tensors |= {f"average.{key}": tensor for key, tensor in (kept.average or {}).items()}
    tensors |= {} if kept.accumulated is None else {"accumulated": kept.accumulated}
    rest = {
        "summed": kept.summed,
        "optimizer": _pack(kept.optimizer, "optimizer", tensors),
        "schedule": _pack(kept.schedule, "schedule", tensors),
    }
    return save({key: t.detach().clone().contiguous() for key, t in tensors.items()}), rest


def unpack(one: Mapping[str, Any], data: bytes) -> Snapshot:
    """The state that `pack` has made into `data` and, beside the learner's name, `one`. DamagedError when it is not whole."""
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise DamagedError(f"{one['name']}.safetensors: {error}") from None
    optimizer, schedule = _unpack(one["optimizer"], tensors), _unpack(one["schedule"], tensors)
    average = _below("average.", tensors) or None
    return Snapshot(_below("model.", tensors), optimizer, schedule, average, tensors.get("accumulated"), one["summed"])


def _below(prefix: str, tensors: Tensors) -> Tensors:
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


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
