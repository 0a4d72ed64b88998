"""Time encoding phi(x) = cos(w x + b) of time differences x in units of the mean time between two events (TGN, TGAT)."""

import torch
from torch import Tensor, nn

# Relative change of w for a change of 1 in the parameter of time="slow": an optimizer's step of 1e-3 moves w by 1e-5 of w.
SLOW = 0.01


class TimeEncoding(nn.Module):
    """w starts at 10^0 .. 10^-9, b at 0.

    kind: "frozen" keeps both; "slow" learns w (1 + SLOW p) and SLOW q, so that small frequencies move in proportion to
    themselves; "learned" learns w and b themselves, as published: the first step of Adam then replaces the small frequencies
    by ones of the size of the learning rate.
    """

    start: Tensor

    def __init__(self, width: int, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer(
            "start", 10 ** -torch.linspace(0, 9, width, dtype=torch.float64).to(torch.get_default_dtype())
        )
        if kind != "frozen":
            self.w = nn.Parameter(self.start.clone() if kind == "learned" else torch.zeros(width))
            self.b = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) for time differences (...)."""
        if self.kind == "frozen":
            # In place: a fresh tensor of this size costs as much as the cosines.
            return (x[..., None] * self.start).cos_()
        if self.kind == "learned":
            return torch.cos(x[..., None] * self.w + self.b)
        return torch.cos(x[..., None] * (self.start * (1 + SLOW * self.w)) + SLOW * self.b)
