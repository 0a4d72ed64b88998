"""The backward pass of a row: plain `.backward()`, whose gradients become the first numbers of the row."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from distseq.gradients.problem import Problem


def flat_gradient(problem: Problem, loss: Tensor) -> list[Tensor]:
    """The gradient of a loss by each trained parameter, flat, then (K,): 1 for a parameter that the loss reaches, else 0.

    A parameter that is not reached has a gradient of zeros, so that a row has the same layout everywhere. ValueError for a sparse
    gradient.
    """
    # `.backward()`, not autograd.grad: with autograd.grad, a reentrant checkpoint around the first layers is not run at all, and
    # their parameters get no gradient (pytorch#51743). Samples that reach no parameter have a loss without a graph;
    # others of the batch may reach some.
    if loss.requires_grad:
        loss.backward()  # type: ignore[no-untyped-call]
    pieces = list(_pieces(problem))
    reached = [parameter.grad is not None for parameter in problem.parameters]
    clear(problem)
    return [*pieces, torch.tensor(reached, dtype=loss.dtype, device=loss.device)]


def clear(problem: Problem) -> None:
    """Drops all gradients, as `zero_grad` does before a loss is computed."""
    for parameter in problem.parameters:
        parameter.grad = None


def without_hooks(parameters: Iterable[nn.Parameter]) -> None:
    """Removes the hooks of parameters.

    The learner calls them with the decoded gradient of the whole batch, as a backward pass on one machine does. Called with the
    gradients of parts too, they would act twice.
    """
    for parameter in parameters:
        for hooks in (parameter._backward_hooks, parameter._post_accumulate_grad_hooks):
            if hooks:
                hooks.clear()


def _pieces(problem: Problem) -> Iterator[Tensor]:
    for parameter in problem.parameters:
        gradient = parameter.grad
        if gradient is None:
            yield parameter.new_zeros(parameter.numel())
        elif gradient.layout is not torch.strided:
            name = next(name for name, one in problem.model.named_parameters() if one is parameter)
            raise ValueError(f"the gradient of parameter {name!r} is sparse, but rows are dense: use sparse=False")
        else:
            yield gradient.detach().flatten()
