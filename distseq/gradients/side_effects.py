"""Detects passes that write to parameters or buffers: each host would change its own copy, and the changes would be lost."""

from torch import nn


class Watched:
    """The parameters and buffers of a model. What a pass has changed of them shows in torch's version counters."""

    def __init__(self, model: nn.Module) -> None:
        modules = list(model.named_modules())
        self._tables = [
            (prefix, table) for prefix, module in modules for table in (module._parameters, module._buffers) if table
        ]
        self._lengths = [(module, len(module._buffers)) for _, module in modules]
        self._tensors = [
            (f"{prefix}.{name}".lstrip("."), table, name, tensor)
            for prefix, table in self._tables
            for name, tensor in table.items()
            if tensor is not None
        ]

    def marks(self) -> list[int]:
        """The present state, for `check`."""
        # Counters, not values: a row of a small model takes half a millisecond, and comparing its weights a tenth of that.
        return [tensor._version for _, _, _, tensor in self._tensors]

    def check(self, marks: list[int]) -> None:
        """ValueError naming the first parameter or buffer that was changed, replaced or added since `marks`."""
        for (name, table, key, tensor), mark in zip(self._tensors, marks, strict=True):
            if tensor._version != mark or table.get(key) is not tensor:
                raise changed("parameter" if isinstance(tensor, nn.Parameter) else "buffer", name)
        for module, length in self._lengths:
            if len(module._buffers) != length:
                raise changed("buffer", list(module._buffers)[-1])


def changed(kind: str, name: str) -> ValueError:
    """The error for a model whose forward writes to a parameter or buffer."""
    return ValueError(
        f"forward changes {kind} {name!r}: each worker would change its own copy, and the changes would be lost"
    )
