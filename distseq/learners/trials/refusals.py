"""Refuses, by name, what a model may have in plain PyTorch but not where workers compute its gradients."""

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.modules import module as torch_module
from torch.nn.parameter import is_lazy


def check_model(model: nn.Module) -> None:
    """ValueError, in one line that names the module or parameter, for what cannot be trained here."""
    for name, module in model.named_modules():
        for reason in _wrong(module):
            raise ValueError(f"{type(module).__name__} {name!r} {reason}")
    for name, tensor in model.state_dict().items():
        if isinstance(tensor, torch.Tensor) and tensor.dtype is torch.complex128:
            raise ValueError(f"{name!r} is complex128, which files of weights cannot hold: use complex64")
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.layout is not torch.strided:
            raise ValueError(f"parameter {name!r} is sparse, but rows are dense: hold its values as a dense tensor")
        if parameter.requires_grad and parameter.is_complex():
            raise ValueError(
                f"parameter {name!r} is complex, but gradients travel as real numbers: hold it as a real tensor of shape "
                "(..., 2), and use torch.view_as_complex in forward"
            )
        # It may step or change the parameter, which a checkpoint would not know of.
        if parameter.requires_grad and parameter._post_accumulate_grad_hooks:
            raise ValueError(
                f"parameter {name!r} has a post-accumulate-grad hook, which would run without a whole batch's gradient: do in an "
                "optimizer what it does"
            )
    for table in (
        "_global_forward_hooks",
        "_global_forward_pre_hooks",
        "_global_backward_hooks",
        "_global_backward_pre_hooks",
    ):
        if getattr(torch_module, table, None):
            raise ValueError(
                "a hook of all modules is registered in this process (torch.nn.modules.module.register_module_...), which "
                "workers would not call: register it on the modules of the model"
            )


def _wrong(module: nn.Module) -> Iterator[str]:
    # Parameters of its copies are no leaves, and it cannot be pickled.
    if isinstance(module, torch.jit.ScriptModule):
        yield "is compiled by torch.jit, and workers need copies that train: use the module that it was compiled from"
    if any(
        is_lazy(tensor) for tensor in (*module._parameters.values(), *module._buffers.values()) if tensor is not None
    ):
        yield "has parameters without a shape: run a batch through the model before it is trained, or give their sizes"
    if getattr(module, "max_norm", None) is not None:
        yield "with max_norm changes its weights in forward, which each worker would do to its own copy: use weight decay or clip"
    if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.sparse:
        yield "with sparse=True gives sparse gradients, but rows are dense: use sparse=False"
