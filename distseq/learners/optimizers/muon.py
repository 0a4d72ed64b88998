"""Muon on the matrices of a model and Adam on its other parameters, as one optimizer."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from distseq.learners.optimizers import orthogonal
from distseq.learners.optimizers.groups import Named, matched, trained_names
from distseq.learners.optimizers.matrices import Shape, matrices
from distseq.learners.optimizers.orthogonal import Options
from distseq.learners.optimizers.settings import Settings

OPTIONS = tuple(field.name for field in fields(Settings))


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) on matrices: momentum, orthogonalized by Newton-Schulz steps; Adam on all other parameters.

    model: its parameters that require a gradient are trained. Biases, gains, single rows and embedding tables go to Adam; which
        parameters are matrices, and how kernels and the gates of recurrent networks are cut into some, is said in
        `distseq.learners.optimizers.matrices`.
    lr, momentum, nesterov, ns_coefficients, ns_steps, eps, weight_decay, adjust_lr_fn: as of `torch.optim.Muon`; the defaults are
        .02, .95, true, five steps and no decay.
    full_precision: orthogonalize in the matrices' dtype: where gradients agree to rounding, so do weights. False: in bfloat16, by
        torch's own steps where torch has them (2.9).
    by_gate: each gate of GRU and LSTM is a matrix, not all together.
    adam_lr, adam_betas, adam_eps, adam_weight_decay: of Adam (with decay: of AdamW), by default .001, (.9, .95), 1e-8 and 0.
    groups: each has a `match`, a regular expression searched in parameter names, and options for the matching parameters, as in a
        config file; with `use` "muon" or "adam" it also says what steps them. The first match counts.

    Each group makes up to two torch groups, of matrices and of the others, whose "lr" are `lr` and `adam_lr`: a schedule scales
    both. Those of the parameters that no group matches come first. ValueError for an unknown option or a value that makes no
    sense, a group that matches nothing, or `use` "muon" for what is no matrix.

    >>> optimizer = Muon(nn.Linear(4, 2), lr=0.01)
    >>> [(group["use"], group["lr"], [tuple(p.shape) for p in group["params"]]) for group in optimizer.param_groups]
    [('muon', 0.01, [(2, 4)]), ('adam', 0.001, [(2,)])]
    """

    def __init__(self, model: nn.Module, *, groups: Sequence[Mapping[str, Any]] = (), **options: Any) -> None:
        if not isinstance(model, nn.Module):
            # By its shape a table of embeddings is a matrix.
            raise ValueError(f"Muon takes a module, which knows what its parameters are: got {type(model).__name__}")
        common, left, made = _settings(Settings(), options), trained_names(model), list[dict[str, Any]]()
        shapes = {by_gate: matrices(model, by_gate=by_gate) for by_gate in (False, True)}
        for group in groups:
            own, left = matched(group, left)
            more = {key: value for key, value in group.items() if key != "match"}
            settings = _settings(common, more)
            made += _torch_groups(own, settings, shapes[settings.by_gate])
        # The defaults say that there is a momentum to cycle.
        super().__init__(
            [*_torch_groups(left, common, shapes[common.by_gate]), *made],
            {"lr": common.lr, "momentum": common.momentum},
        )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """ValueError after the optimizer was made, for such a group does not say what is a matrix."""
        if "use" not in param_group:
            raise ValueError("Muon takes its groups when it is made: Muon(model, groups=[...])")
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of all parameters that have a gradient; the loss of `closure`, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if group["use"] == "muon":
                options = Options(**{name: group[name] for name in Options._fields})
                orthogonal.step(list(self._matrices(group)), options, full_precision=group["full_precision"])
            else:
                self._step_by_adam(group)
        return loss

    def _matrices(self, group: Mapping[str, Any]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """(value, gradient, momentum) of each matrix, as views of whole parameters, gradients and momenta."""
        for parameter, shape in zip(group["params"], group["shapes"], strict=True):
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            value, momentum = (whole.view(-1, *shape) for whole in (parameter.detach(), state["momentum_buffer"]))
            yield from zip(value, parameter.grad.reshape(-1, *shape), momentum, strict=True)

    def _step_by_adam(self, group: Mapping[str, Any]) -> None:
        # Of one step: what lasts is its state, which is this optimizer's own.
        betas = (group["momentum"], group["beta2"])
        adam = torch.optim.AdamW(
            group["params"], group["lr"], betas, eps=group["eps"], weight_decay=group["weight_decay"]
        )
        adam.state = self.state
        adam.step()


def _settings(common: Settings, more: Mapping[str, Any]) -> Settings:
    for name in more:
        if name not in OPTIONS:
            raise ValueError(f"Muon has no option {name!r}: it takes {', '.join(OPTIONS)}")
    return replace(common, **more)


def _torch_groups(named: Named, settings: Settings, shapes: Mapping[str, Shape]) -> list[dict[str, Any]]:
    """Of these parameters, the group of matrices and the group of the others, where there are any."""
    own = {name: _shape(name, parameter, settings, shapes) for name, parameter in named}
    by_muon = {"params": [p for name, p in named if own[name]], "shapes": [shape for shape in own.values() if shape]}
    by_adam = {"params": [p for name, p in named if not own[name]]}
    both = (by_muon | settings.muon(), by_adam | settings.adam())
    return [group for group in both if group["params"]]


def _shape(name: str, parameter: nn.Parameter, settings: Settings, shapes: Mapping[str, Shape]) -> Shape | None:
    """Of the matrices in a parameter; None if it goes to Adam."""
    if settings.use == "adam" or (settings.use is None and name not in shapes):
        return None
    if name not in shapes and (parameter.ndim < 2 or parameter.shape[-2] < 2):
        raise ValueError(f"use = 'muon' needs matrices of more than one row: {name} has shape {tuple(parameter.shape)}")
    if not parameter.is_contiguous():
        raise ValueError(
            f"Muon needs contiguous matrices: {name} has shape {tuple(parameter.shape)} and strides "
            f"{parameter.stride()}"
        )
    return shapes.get(name) or (parameter.shape[-2], parameter.shape[-1])
