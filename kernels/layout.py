"""Checks tensor layouts such as "BTHD": each letter must have the same size in all tensors of a call."""

from collections.abc import Mapping

from torch import Tensor


def sizes(op: str, tensors: Mapping[str, tuple[Tensor | None, str]]) -> dict[str, int]:
    """The size of each letter, from tensors given as name -> (tensor, layout such as "BTHD"). Tensors that are None are skipped.

    ValueError, naming the tensor, if it is not floating point, has the wrong number of axes or an empty one, is on another
    device than those before it, or disagrees with them about the size of a letter.
    """
    found: dict[str, tuple[int, str]] = {}
    device = None
    for name, (tensor, layout) in tensors.items():
        if tensor is None:
            continue
        if not (tensor.is_floating_point() or tensor.is_complex()):
            raise ValueError(f"{op}: {name} must be floating point: got {str(tensor.dtype).removeprefix('torch.')}")
        shape = tuple(tensor.shape)
        if len(shape) != len(layout):
            raise ValueError(f"{op}: {name} must be ({', '.join(layout)}): got shape {shape}")
        device = device or tensor.device
        if tensor.device != device:
            raise ValueError(
                f"{op}: all tensors must be on one device: got {name} on {tensor.device}, others on {device}"
            )
        for letter, size in zip(layout, shape, strict=True):
            # The first tensor with a letter defines its size; messages name that one too, since either may be the wrong one.
            known, where = found.setdefault(letter, (size, name))
            if size != known:
                raise ValueError(f"{op}: {letter} is {known} in {where}, but {size} in {name} of shape {shape}")
            if not size:
                raise ValueError(f"{op}: {letter} must be at least 1: got {name} of shape {shape}")
    return {letter: size for letter, (size, _) in found.items()}
