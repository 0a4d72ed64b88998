"""Loads the state of an optimizer with the dtypes in which it was saved."""

from collections.abc import Mapping
from typing import Any

import torch

from distseq.learners.optimizers.by_name import Optimizer


def load_optimizer(optimizer: Optimizer, saved: Mapping[str, Any]) -> None:
    """`optimizer.load_state_dict(saved)`, after which each tensor has the dtype that it has in `saved`.

    torch casts the whole state but `step` to the dtype of the parameters. NAdam, which keeps a product in float32, would go on
    in float64 with digits that it did not have: the weights of a resumed run would be off by 1e-10. Tensors are put back where
    `state_dict()` holds the optimizer's own dictionaries, as torch's does.

    >>> model = torch.nn.Linear(2, 1, bias=False, dtype=torch.float64)
    >>> optimizer = torch.optim.NAdam(model.parameters())
    >>> model(torch.ones(1, 2, dtype=torch.float64)).sum().backward()
    >>> optimizer.step()
    >>> load_optimizer(optimizer, optimizer.state_dict())
    >>> optimizer.state[model.weight]["mu_product"].dtype
    torch.float32
    """
    optimizer.load_state_dict(dict(saved))
    _put_back(optimizer.state_dict(), saved)


def _put_back(own: Any, saved: Any) -> None:
    """Replaces the tensors of `own` whose dtype is not that of the same tensor in `saved`; both are nested alike."""
    if isinstance(own, dict) and isinstance(saved, Mapping):
        keys: Any = own.keys() & saved.keys()
    elif isinstance(own, list) and isinstance(saved, list):
        keys = range(min(len(own), len(saved)))
    else:
        return
    for key in keys:
        mine, theirs = own[key], saved[key]
        if not (isinstance(mine, torch.Tensor) and isinstance(theirs, torch.Tensor)):
            _put_back(mine, theirs)
        elif mine.dtype != theirs.dtype:
            own[key] = theirs.to(mine.device)
