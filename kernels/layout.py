"""Layouts of tensors, checked in one place: each letter of a layout has one size in all tensors of a call."""

from collections.abc import Mapping

from torch import Tensor


def sizes(op: str, tensors: Mapping[str, tuple[Tensor | None, str]]) -> dict[str, int]:
    """The size of each letter, of tensors given as name -> (tensor, layout such as "BTHD"); None is passed over.

    ValueError naming the tensor that is not floating point, has another number of axes, lies on another device, or whose size
    of a letter differs from that of the tensors before it.
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
                f"{op}: all tensors must lie on one device: got {name} on {tensor.device}, others on {device}"
            )
        for letter, size in zip(layout, shape, strict=True):
            known, where = found.setdefault(letter, (size, name))
            if size != known:
                raise ValueError(f"{op}: {letter} is {known} in {where}, and {size} in {name} of shape {shape}")
            if not size:
                raise ValueError(f"{op}: {letter} must be at least 1: got {name} of shape {shape}")
    return {letter: size for letter, (size, _) in found.items()}
