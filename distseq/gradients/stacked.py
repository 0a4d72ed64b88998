"""Computes the gradients of several models of one structure in one pass, by torch.func.vmap.

The project's kernels have vmap rules that fold the models into their heads. Shapes: M models, P parameters, B samples.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distseq.gradients.problem import pair


class _Loss(nn.Module):
    """Makes per_sample_loss a forward, which is all that torch.func.functional_call can call."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Any) -> Any:
        return self.model.per_sample_loss(batch)  # type: ignore[operator]


def stacked_gradients(
    models: Sequence[nn.Module], vectors_MP: Tensor, batches: Sequence[dict[str, Tensor]], weights_MB: Tensor
) -> tuple[Tensor, Tensor | None]:
    """For each model the gradient of its weighted sum of losses, ones for parameters reached, and that sum; and its counts.

    Returns (M, P + K + 1), and (M, B) counts or None where the loss returns none.

    vectors_MP: trained parameters; batches: one dict of tensors (B, ...) per model; weights_MB: weights of the samples. The
    models have one structure; each keeps its own frozen parameters and buffers. RuntimeError for an operation that vmap cannot
    map, and whatever a model raises.
    """
    own = [{**dict(model.named_parameters()), **dict(model.named_buffers())} for model in models]
    trained = {name: each for name, each in models[0].named_parameters() if each.requires_grad}
    values = {name: torch.stack([each[name] for each in own]) for name in own[0].keys() - trained.keys()}
    pieces = torch.split(vectors_MP, [each.numel() for each in trained.values()], 1)
    leaves = {
        name: piece.reshape(len(models), *each.shape).contiguous().requires_grad_()
        for (name, each), piece in zip(trained.items(), pieces, strict=True)
    }
    values |= leaves
    batch = {name: torch.stack([each[name] for each in batches]) for name in batches[0]}
    named = {f"model.{name}": value for name, value in values.items()}
    with warnings.catch_warnings():
        # torch warns of operations that it maps one by one. Whether a pass still pays is measured (distseq.gradients.passes).
        warnings.filterwarnings("ignore", "There is a performance drop")
        call = torch.func.vmap(lambda own, b: torch.func.functional_call(_Loss(models[0]), own, (b,)))
        losses_MB, counts_MB = pair(call(named, batch), "per_sample_loss")
    # One product per model instead of a batched one: the same call, and so the same bits, as in a row computed alone.
    losses = torch.stack([losses_B @ weights_B for losses_B, weights_B in zip(losses_MB, weights_MB, strict=True)])
    found = torch.autograd.grad(losses.sum(), list(leaves.values()), allow_unused=True)
    gradients = [
        torch.zeros_like(leaf) if each is None else each for each, leaf in zip(found, leaves.values(), strict=True)
    ]
    # All models are reached alike: code that decides by values cannot be stacked.
    reached_K = torch.tensor([each is not None for each in found], dtype=losses.dtype, device=losses.device)
    flat = [each.reshape(len(models), -1) for each in gradients]
    counts_MB = None if counts_MB is None else counts_MB.detach().to(vectors_MP.dtype)
    return torch.cat([*flat, reached_K.expand(len(models), -1), losses.detach()[:, None]], 1), counts_MB
